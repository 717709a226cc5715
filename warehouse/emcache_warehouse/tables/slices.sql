-- Slices of the records that are their dataset's newest.
INSERT INTO slices
SELECT
    datasets.dataset,
    datasets.record_id,
    file.slice_id,
    file.position,
    file.split,
    file.image,
    file.mask,
    file.height,
    file.width,
    file.pixel_sha256,
    file.mask_sha256,
    file.foreground_fraction,
    file.grey_pixels
FROM read_parquet($files, filename = true, hive_partitioning = false, union_by_name = true) AS file
JOIN datasets ON datasets.record_id = parse_path(file.filename)[-2];
