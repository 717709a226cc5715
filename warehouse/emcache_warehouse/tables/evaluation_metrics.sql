INSERT INTO evaluation_metrics
SELECT
    parse_path(file.filename)[-2],
    file.eval_on,
    file.split,
    file.slice_id,
    file.class,
    file.tp,
    file.fp,
    file.fn,
    file.tn,
    file.slices_from_training
FROM (
    FROM read_parquet($files, filename = true, hive_partitioning = false, union_by_name = true)
    UNION ALL BY NAME
    -- A column that records of older versions lack.
    SELECT NULL::BIGINT AS slices_from_training WHERE false
) AS file;
