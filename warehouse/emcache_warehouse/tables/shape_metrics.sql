INSERT INTO shape_metrics
SELECT
    parse_path(filename)[-2],
    eval_on,
    split,
    dimensions,
    slice_id,
    n_slices,
    dice,
    boundary_f,
    hausdorff_95,
    n_true,
    n_predicted,
    matched_50,
    iou_sum_50,
    matched_75,
    iou_sum_75,
    adapted_rand_error,
    voi_split,
    voi_merge
FROM read_parquet($files, filename = true, hive_partitioning = false);
