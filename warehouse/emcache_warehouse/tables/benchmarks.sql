INSERT INTO benchmarks
SELECT
    parse_path(file.filename)[-2],
    file.name,
    file.question,
    file.ratio,
    file.low,
    file.high,
    file.unit,
    file.target,
    file.verdict,
    file.device,
    nullif(file.note, ''),
    file.times
FROM read_parquet($files, filename = true, hive_partitioning = false, union_by_name = true) AS file;
