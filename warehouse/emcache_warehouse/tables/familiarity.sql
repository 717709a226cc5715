INSERT INTO familiarity
SELECT
    parse_path(file.filename)[-2],
    file.run_id,
    file.domain,
    file.slice_id,
    file.learned_from,
    file.nearest,
    file.distance,
    file.distance_of_mean,
    file.p_value,
    file.p_value_of_mean,
    file.outside
FROM read_parquet($files, filename = true, hive_partitioning = false, union_by_name = true) AS file;
