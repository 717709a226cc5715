INSERT INTO objects
SELECT
    parse_path(filename)[-2],
    input,
    object_id,
    "class",
    voxels,
    volume_um3,
    n_slices,
    z,
    z_nm,
    z_first,
    z_last,
    y,
    y_nm,
    y_first,
    y_last,
    x,
    x_nm,
    x_first,
    x_last
FROM read_parquet($files, filename = true, hive_partitioning = false);
