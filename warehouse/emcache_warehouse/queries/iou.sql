-- Score of every run on the test split, with the paper's figure for the same cell (paired: beside macro and pooled).
-- columns: run_id, regime, backbone, weights, longest_edge, protocol, train_on, sampling, precision, seed, eval_on, seen, audit_accepted, nothing_learned, n_slices, n_near, iou_fg, dice_fg, data, paper_iou_fg
WITH paper AS (
    -- A cell that the paper prints twice counts as its first table has it.
    SELECT
        backbone,
        regime,
        train_on,
        eval_on,
        sampling,
        arg_min(iou_fg_mean, paper_table) AS paper_iou_fg
    FROM paper_results
    GROUP BY ALL
)
SELECT
    metrics.* EXCLUDE (split),
    paper.paper_iou_fg
FROM run_metrics AS metrics
LEFT JOIN paper
    ON paper.backbone = metrics.backbone
    AND paper.regime = metrics.regime
    AND paper.train_on = metrics.train_on
    AND paper.sampling = metrics.sampling
    AND NOT metrics.seen
    AND (
        paper.eval_on = metrics.eval_on
        OR (paper.eval_on = metrics.train_on AND metrics.eval_on IN ('macro', 'pooled'))
    )
WHERE metrics.split = 'test'
ORDER BY metrics.backbone, metrics.train_on, metrics.eval_on, metrics.seed, metrics.run_id, metrics.seen;
