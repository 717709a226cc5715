-- Score of every seed on the test split; identical_repeat marks runs whose pixel totals another run has too.
-- columns: regime, backbone, weights, longest_edge, protocol, train_on, sampling, eval_on, audit_accepted, n_slices, seed, run_id, iou_fg, dice_fg, identical_repeat
SELECT
    metrics.regime,
    metrics.backbone,
    metrics.weights,
    metrics.longest_edge,
    metrics.protocol,
    metrics.train_on,
    metrics.sampling,
    metrics.eval_on,
    metrics.audit_accepted,
    metrics.n_slices,
    metrics.seed,
    metrics.run_id,
    metrics.iou_fg,
    metrics.dice_fg,
    count(*) OVER (
        PARTITION BY
            metrics.regime,
            metrics.backbone,
            metrics.weights,
            metrics.longest_edge,
            metrics.protocol,
            metrics.train_on,
            metrics.sampling,
            metrics.eval_on,
            metrics.audit_accepted,
            metrics.n_slices,
            totals.source_totals
    ) > 1 AS identical_repeat
FROM run_metrics AS metrics
JOIN run_totals AS totals USING (run_id, eval_on, split)
WHERE metrics.split = 'test'
ORDER BY ALL;
