INSERT INTO gap_points
SELECT
    parse_path(file.filename)[-2],
    file.domain,
    file.slice_id,
    file.pc1,
    file.pc2,
    file.explained1,
    file.explained2,
    file.thumbnail
FROM read_parquet($files, filename = true, hive_partitioning = false, union_by_name = true) AS file;
