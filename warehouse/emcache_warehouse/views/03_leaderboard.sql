-- Scores over seeds. Weights, sizes, protocols, arithmetic and test sets never share a row, and neither do
-- slices that runs have learned from and others.
CREATE VIEW leaderboard AS
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
    metrics.split,
    metrics.seen,
    metrics.audit_accepted,
    metrics.data,
    metrics.n_slices,
    metrics.n_near,
    count(*) AS n_runs,
    avg(metrics.iou_fg ORDER BY metrics.run_id) AS iou_fg_mean,
    stddev_samp(metrics.iou_fg ORDER BY metrics.run_id) AS iou_fg_std,
    count(DISTINCT totals.source_totals) AS distinct_results,
    count(metrics.nothing_learned) AS n_nothing_learned
FROM run_metrics AS metrics
JOIN run_totals AS totals USING (run_id, eval_on, split, seen)
GROUP BY
    metrics.regime,
    metrics.backbone,
    metrics.weights,
    metrics.longest_edge,
    metrics.protocol,
    metrics.train_on,
    metrics.sampling,
    metrics."precision",
    metrics.eval_on,
    metrics.split,
    metrics.seen,
    metrics.audit_accepted,
    metrics.data,
    metrics.n_slices,
    metrics.n_near;
COMMENT ON VIEW leaderboard IS 'Mean and spread of the foreground IoU over runs that differ in nothing but the seed.';
COMMENT ON COLUMN leaderboard.seen IS 'Whether the runs have learned from the pixels of these slices: then the score is no test.';
COMMENT ON COLUMN leaderboard.data IS 'Where rows would look alike: twelve digits of a hash of slices, splits and masks, in which they differ. NULL elsewhere.';
COMMENT ON COLUMN leaderboard.n_near IS 'Of these slices, those within 5 places of one that the runs have learned from.';
COMMENT ON COLUMN leaderboard.n_runs IS 'Runs in the row.';
COMMENT ON COLUMN leaderboard.iou_fg_mean IS 'Mean foreground IoU over the runs.';
COMMENT ON COLUMN leaderboard.iou_fg_std IS 'Sample standard deviation; NULL for one run.';
COMMENT ON COLUMN leaderboard.distinct_results IS 'Runs with different pixel totals; fewer than n_runs means identical repeats.';
COMMENT ON COLUMN leaderboard.n_nothing_learned IS 'Of the runs, those whose training is known to have come to nothing; they are part of the mean.';
