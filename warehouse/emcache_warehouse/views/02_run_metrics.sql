-- Scores of every run, with what identifies the run.
CREATE VIEW run_metrics AS
SELECT
    runs.run_id,
    runs.regime,
    runs.backbone,
    runs.weights,
    runs.longest_edge,
    runs.protocol,
    runs.train_on,
    runs.sampling,
    runs.seed,
    run_totals.eval_on,
    run_totals.split,
    runs.audit_accepted,
    run_totals.n_slices,
    run_totals.iou_fg,
    run_totals.dice_fg
FROM runs
JOIN run_totals USING (run_id);
COMMENT ON VIEW run_metrics IS 'Foreground IoU and Dice of every run on dataset-level pixel totals; eval_on is a dataset, macro or pooled.';
COMMENT ON COLUMN run_metrics.eval_on IS 'A dataset; macro is the mean over datasets, pooled the score of the summed counts.';
COMMENT ON COLUMN run_metrics.iou_fg IS 'tp / (tp + fp + fn + 1e-7).';
COMMENT ON COLUMN run_metrics.dice_fg IS '2 tp / (2 tp + fp + fn + 1e-7).';
