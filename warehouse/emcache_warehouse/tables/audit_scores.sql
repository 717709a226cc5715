INSERT INTO audit_scores
SELECT
    parse_path(file.filename)[-2],
    file.image,
    file.mask,
    file.score,
    file.declared,
    file.assigned
FROM read_parquet($files, filename = true, hive_partitioning = false, union_by_name = true) AS file;
