-- Ours beside the paper's, cell by cell, on the test split. The paper's paired cells are called a
-- macro-average but look pooled, so they are set against both.
CREATE VIEW paper_comparison AS
SELECT
    paper.paper_table,
    paper.backbone,
    paper.regime,
    paper.train_on,
    paper.eval_on,
    paper.sampling,
    paper.iou_fg_mean AS paper_iou_fg_mean,
    paper.iou_fg_std AS paper_iou_fg_std,
    paper.n_runs AS paper_n_runs,
    ours.eval_on AS our_eval_on,
    ours.weights,
    ours.longest_edge,
    ours.protocol,
    ours."precision",
    ours.audit_accepted,
    ours.data,
    ours.n_slices,
    ours.n_runs,
    ours.n_nothing_learned,
    ours.iou_fg_mean,
    ours.iou_fg_std,
    ours.distinct_results,
    ours.iou_fg_mean - paper.iou_fg_mean AS difference
FROM paper_results AS paper
LEFT JOIN leaderboard AS ours
    ON ours.split = 'test'
    AND NOT ours.seen
    AND ours.backbone = paper.backbone
    AND ours.regime = paper.regime
    -- A pair is the same pair in either order.
    AND list_sort(string_split(ours.train_on, ' + ')) = list_sort(string_split(paper.train_on, ' + '))
    AND ours.sampling = paper.sampling
    AND (
        ours.eval_on = paper.eval_on
        OR (contains(paper.eval_on, ' + ') AND ours.eval_on IN ('macro', 'pooled'))
    );
COMMENT ON VIEW paper_comparison IS 'Each cell of the paper beside our leaderboard row for the same backbone, regime, data and sampling; NULL where there is none.';
COMMENT ON COLUMN paper_comparison.paper_table IS 'Number of the table in arXiv 2602.08505.';
COMMENT ON COLUMN paper_comparison.our_eval_on IS 'The dataset; for a paired cell macro and pooled, one row each.';
COMMENT ON COLUMN paper_comparison.difference IS 'Our mean less the paper''s.';
COMMENT ON COLUMN paper_comparison.paper_iou_fg_mean IS 'The paper''s mean foreground IoU.';
COMMENT ON COLUMN paper_comparison.paper_iou_fg_std IS 'The paper''s standard deviation over its runs.';
COMMENT ON COLUMN paper_comparison.paper_n_runs IS 'Number of runs, where the paper states it.';
COMMENT ON COLUMN paper_comparison.n_runs IS 'Our runs in the leaderboard row.';
COMMENT ON COLUMN paper_comparison.iou_fg_mean IS 'Our mean foreground IoU.';
COMMENT ON COLUMN paper_comparison.iou_fg_std IS 'Our sample standard deviation; NULL for one run.';
