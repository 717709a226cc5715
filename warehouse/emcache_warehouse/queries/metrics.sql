-- Boundary and object scores of every run that was measured (emcache metrics): means over slices, and objects counted together; of several measurements alike the newest.
-- columns: regime, backbone, weights, longest_edge, protocol, train_on, sampling, precision, seed, run_id, eval_on, split, dimensions, tolerance, smallest_object, n_slices, dice_mean, boundary_f_mean, hausdorff_95_mean, n_distances, n_true, n_predicted, object_precision_50, object_recall_50, object_f1_50, panoptic_quality_50, object_precision_75, object_recall_75, object_f1_75, panoptic_quality_75, adapted_rand_error_mean, voi_split_mean, voi_merge_mean
WITH newest AS (
    SELECT max(measurement_id) AS measurement_id
    FROM shape_measurements
    GROUP BY run_id, tolerance, smallest_object
)
SELECT
    runs.regime,
    runs.backbone,
    runs.weights,
    runs.longest_edge,
    runs.protocol,
    runs.train_on,
    runs.sampling,
    runs."precision",
    runs.seed,
    runs.run_id,
    shapes.eval_on,
    shapes.split,
    shapes.dimensions,
    measurements.tolerance,
    measurements.smallest_object,
    sum(shapes.n_slices)::BIGINT AS n_slices,
    avg(shapes.dice ORDER BY shapes.slice_id) AS dice_mean,
    avg(shapes.boundary_f ORDER BY shapes.slice_id) AS boundary_f_mean,
    avg(shapes.hausdorff_95 ORDER BY shapes.slice_id) AS hausdorff_95_mean,
    count(shapes.hausdorff_95) AS n_distances,
    sum(shapes.n_true)::BIGINT AS n_true,
    sum(shapes.n_predicted)::BIGINT AS n_predicted,
    sum(matched_50) / nullif(sum(n_predicted), 0) AS object_precision_50,
    sum(matched_50) / nullif(sum(n_true), 0) AS object_recall_50,
    2 * sum(matched_50) / nullif(sum(n_predicted) + sum(n_true), 0) AS object_f1_50,
    2 * sum(iou_sum_50) / nullif(sum(n_predicted) + sum(n_true), 0) AS panoptic_quality_50,
    sum(matched_75) / nullif(sum(n_predicted), 0) AS object_precision_75,
    sum(matched_75) / nullif(sum(n_true), 0) AS object_recall_75,
    2 * sum(matched_75) / nullif(sum(n_predicted) + sum(n_true), 0) AS object_f1_75,
    2 * sum(iou_sum_75) / nullif(sum(n_predicted) + sum(n_true), 0) AS panoptic_quality_75,
    avg(shapes.adapted_rand_error ORDER BY shapes.slice_id) AS adapted_rand_error_mean,
    avg(shapes.voi_split ORDER BY shapes.slice_id) AS voi_split_mean,
    avg(shapes.voi_merge ORDER BY shapes.slice_id) AS voi_merge_mean
FROM shape_metrics AS shapes
JOIN shape_measurements AS measurements USING (measurement_id)
SEMI JOIN newest USING (measurement_id)
JOIN shown_runs AS runs USING (run_id)
GROUP BY ALL
ORDER BY shapes.eval_on, shapes.split, shapes.dimensions, measurements.tolerance, measurements.smallest_object, panoptic_quality_50 DESC, runs.run_id;
