-- Pixel totals and scores per run: one row per dataset and split, and for a run on two or more
-- datasets also `macro` (mean of the scores of the datasets it was trained on) and `pooled` (score of
-- their summed counts). Slices whose pixels the run has learned from make rows of their own, which enter
-- neither.
CREATE VIEW run_totals AS
WITH source_counts AS (
    SELECT
        run_id,
        eval_on,
        split,
        coalesce(slices_from_training = 0, false) AS seen,
        data_key,
        audit_failed,
        count(*) AS n_slices,
        count(*) FILTER (slices_from_training BETWEEN 1 AND 5) AS n_near,
        sum(tp)::BIGINT AS tp,
        sum(fp)::BIGINT AS fp,
        sum(fn)::BIGINT AS fn,
        sum(tn)::BIGINT AS tn
    FROM slice_counts
    SEMI JOIN shown_runs USING (run_id)
    WHERE class = 'foreground'
    GROUP BY ALL
),
sources AS (
    SELECT
        *,
        tp / (tp + fp + fn + 1e-7) AS iou_fg,
        2 * tp / (2 * tp + fp + fn + 1e-7) AS dice_fg,
        [{'eval_on': eval_on, 'tp': tp, 'fp': fp, 'fn': fn, 'tn': tn}] AS source_totals
    FROM source_counts
),
paired AS (
    -- Ordered, so that the same counts give the same floating-point mean whatever the row order.
    SELECT
        run_id,
        split,
        string_agg(data_key, ' ' ORDER BY eval_on) AS data_key,
        bool_or(audit_failed) AS audit_failed,
        sum(n_slices)::BIGINT AS n_slices,
        sum(n_near)::BIGINT AS n_near,
        sum(tp)::BIGINT AS tp,
        sum(fp)::BIGINT AS fp,
        sum(fn)::BIGINT AS fn,
        sum(tn)::BIGINT AS tn,
        avg(iou_fg ORDER BY eval_on) AS iou_fg,
        avg(dice_fg ORDER BY eval_on) AS dice_fg,
        flatten(list(source_totals ORDER BY eval_on)) AS source_totals
    FROM sources
    JOIN runs USING (run_id)
    WHERE list_contains(string_split(runs.train_on, ' + '), eval_on) AND NOT seen
    GROUP BY run_id, split, runs.train_on
    HAVING count(*) >= 2 AND count(*) = len(string_split(runs.train_on, ' + '))
)
SELECT
    run_id,
    eval_on,
    split,
    seen,
    n_slices,
    n_near,
    tp,
    fp,
    fn,
    tn,
    iou_fg,
    dice_fg,
    source_totals,
    data_key,
    audit_failed
FROM sources
UNION ALL
SELECT
    run_id,
    'macro',
    split,
    false,
    n_slices,
    n_near,
    tp,
    fp,
    fn,
    tn,
    iou_fg,
    dice_fg,
    source_totals,
    data_key,
    audit_failed
FROM paired
UNION ALL
SELECT
    run_id,
    'pooled',
    split,
    false,
    n_slices,
    n_near,
    tp,
    fp,
    fn,
    tn,
    tp / (tp + fp + fn + 1e-7),
    2 * tp / (2 * tp + fp + fn + 1e-7),
    source_totals,
    data_key,
    audit_failed
FROM paired;
COMMENT ON VIEW run_totals IS 'Foreground pixel totals and scores per run, dataset and split, from the training itself and from later evaluations; for a run on several datasets also macro and pooled over these.';
COMMENT ON COLUMN run_totals.seen IS 'Whether the run has learned from the pixels of these slices: then the score is no test.';
COMMENT ON COLUMN run_totals.n_near IS 'Of these slices, those within 5 places of one that the run has learned from; in a fine stack they look nearly like it.';
COMMENT ON COLUMN run_totals.source_totals IS 'The counts of each source, in order of its name: equal for runs that predicted the same totals.';
COMMENT ON COLUMN run_totals.data_key IS 'What a later evaluation predicted; NULL for what the training itself scored, which its features and labels identify.';
COMMENT ON COLUMN run_totals.audit_failed IS 'Whether what a later evaluation predicted had failed its audit; NULL for what the training itself scored, and in records of older versions.';
