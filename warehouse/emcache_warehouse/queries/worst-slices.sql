-- Slices with the lowest foreground IoU, worst first, over all splits; runs that learned nothing and slices that a run has learned from are left out.
-- parameter: limit = 20, how many rows
-- columns: iou_fg, eval_on, split, slice_id, run_id, backbone, weights, longest_edge, protocol, train_on, seed, tp, fp, fn, tn
SELECT
    counts.tp / (counts.tp + counts.fp + counts.fn + 1e-7) AS iou_fg,
    counts.eval_on,
    counts.split,
    counts.slice_id,
    counts.run_id,
    runs.backbone,
    runs.weights,
    runs.longest_edge,
    runs.protocol,
    runs.train_on,
    runs.seed,
    counts.tp,
    counts.fp,
    counts.fn,
    counts.tn
FROM (
    FROM slice_metrics
    UNION ALL BY NAME
    SELECT
        evaluations.run_id,
        evaluation_metrics.* EXCLUDE (evaluation_id)
    FROM evaluation_metrics
    JOIN evaluations USING (evaluation_id)
) AS counts
JOIN shown_runs AS runs USING (run_id)
WHERE runs.nothing_learned IS NULL
AND counts.slices_from_training IS DISTINCT FROM 0
AND counts.class = 'foreground'
-- A slice without foreground, predicted or true, has no IoU to be bad at.
AND counts.tp + counts.fp + counts.fn > 0
ORDER BY iou_fg, counts.fp + counts.fn DESC, counts.run_id, counts.eval_on, counts.split, counts.slice_id
LIMIT $limit;
