-- The newest figure of each benchmark on each machine, with its target and how far it is beyond.
-- columns: machine, name, device, quick, ratio, low, high, unit, target, verdict, margin, margin_low, margin_high, question, note
WITH newest AS (
    SELECT
        *,
        regexp_extract(target, '[0-9.]+$')::DOUBLE AS bound,
        starts_with(target, '>=') AS at_least
    FROM benchmarks
    JOIN benchmark_runs USING (bench_id)
    QUALIFY row_number() OVER (PARTITION BY machine, name ORDER BY bench_id DESC) = 1
)
SELECT
    machine,
    name,
    device,
    quick,
    ratio,
    low,
    high,
    unit,
    target,
    verdict,
    if(at_least, ratio / bound, bound / ratio) AS margin,
    if(at_least, low / bound, bound / high) AS margin_low,
    if(at_least, high / bound, bound / low) AS margin_high,
    question,
    note
FROM newest
ORDER BY machine, bench_id, name;
