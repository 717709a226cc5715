-- Scores over seeds. Weights, sizes, protocols and test sets never share a row.
CREATE VIEW leaderboard AS
SELECT
    metrics.regime,
    metrics.backbone,
    metrics.weights,
    metrics.longest_edge,
    metrics.protocol,
    metrics.train_on,
    metrics.sampling,
    metrics.eval_on,
    metrics.split,
    metrics.audit_accepted,
    metrics.n_slices,
    count(*) AS n_runs,
    avg(metrics.iou_fg ORDER BY metrics.run_id) AS iou_fg_mean,
    stddev_samp(metrics.iou_fg ORDER BY metrics.run_id) AS iou_fg_std,
    count(DISTINCT totals.source_totals) AS distinct_results
FROM run_metrics AS metrics
JOIN run_totals AS totals USING (run_id, eval_on, split)
JOIN runs USING (run_id)
-- Other splits, corrected masks, changed slices or another arithmetic make other experiments, though no column
-- shown here tells them apart: they get rows of their own.
GROUP BY
    metrics.regime,
    metrics.backbone,
    metrics.weights,
    metrics.longest_edge,
    metrics.protocol,
    metrics.train_on,
    metrics.sampling,
    metrics.eval_on,
    metrics.split,
    metrics.audit_accepted,
    metrics.n_slices,
    runs.setup_fingerprint,
    runs.feature_fingerprints,
    runs.label_sets,
    runs."precision",
    totals.data_key;
COMMENT ON VIEW leaderboard IS 'Mean and spread of the foreground IoU over runs that differ in nothing but the seed.';
COMMENT ON COLUMN leaderboard.n_runs IS 'Runs in the row.';
COMMENT ON COLUMN leaderboard.iou_fg_mean IS 'Mean foreground IoU over the runs.';
COMMENT ON COLUMN leaderboard.iou_fg_std IS 'Sample standard deviation; NULL for one run.';
COMMENT ON COLUMN leaderboard.distinct_results IS 'Runs with different pixel totals; fewer than n_runs means identical repeats.';
