INSERT INTO training_slices
SELECT
    parse_path(file.filename)[-2],
    file.dataset,
    file.slice_id,
    file.part,
    file.pixel_sha256
FROM read_parquet($files, filename = true, hive_partitioning = false) AS file;
