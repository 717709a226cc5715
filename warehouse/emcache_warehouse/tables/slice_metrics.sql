INSERT INTO slice_metrics
SELECT
    parse_path(file.filename)[-2],
    file.eval_on,
    file.split,
    file.slice_id,
    file.class,
    file.tp,
    file.fp,
    file.fn,
    file.tn
FROM read_parquet($files, filename = true, hive_partitioning = false) AS file;
