-- The machine that was measured last.
-- columns: machine, bench_id
SELECT machine, bench_id
FROM benchmark_runs
ORDER BY bench_id DESC
LIMIT 1;
