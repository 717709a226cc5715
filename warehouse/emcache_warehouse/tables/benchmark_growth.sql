INSERT INTO benchmark_growth
SELECT parse_path(file.filename)[-2], file.stage, file.n_slices, file.seconds
FROM read_parquet($files, filename = true, hive_partitioning = false, union_by_name = true) AS file;
