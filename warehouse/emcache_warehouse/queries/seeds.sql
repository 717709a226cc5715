-- Score of every seed on the test split; identical_repeat marks runs whose pixel totals another run has too.
-- columns: regime, backbone, weights, longest_edge, protocol, train_on, sampling, precision, eval_on, seen, audit_accepted, data, n_slices, n_near, seed, run_id, iou_fg, dice_fg, nothing_learned, identical_repeat
SELECT
    metrics.regime,
    metrics.backbone,
    metrics.weights,
    metrics.longest_edge,
    metrics.protocol,
    metrics.train_on,
    metrics.sampling,
    metrics."precision",
    metrics.eval_on,
    metrics.seen,
    metrics.audit_accepted,
    metrics.data,
    metrics.n_slices,
    metrics.n_near,
    metrics.seed,
    metrics.run_id,
    metrics.iou_fg,
    metrics.dice_fg,
    metrics.nothing_learned,
    count(*) OVER (
        PARTITION BY
            metrics.regime,
            metrics.backbone,
            metrics.weights,
            metrics.longest_edge,
            metrics.protocol,
            metrics.train_on,
            metrics.sampling,
            metrics."precision",
            metrics.eval_on,
            metrics.seen,
            metrics.audit_accepted,
            metrics.data,
            metrics.n_slices,
            totals.source_totals
    ) > 1 AS identical_repeat
FROM run_metrics AS metrics
JOIN run_totals AS totals USING (run_id, eval_on, split, seen)
WHERE metrics.split = 'test'
ORDER BY ALL;
