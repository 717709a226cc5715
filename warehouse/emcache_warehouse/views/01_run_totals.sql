-- Pixel totals and scores per run: one row per source, and with two or more sources of the same
-- split also `macro` (mean of the per-source scores) and `pooled` (scores of the summed counts).
CREATE VIEW run_totals AS
WITH source_counts AS (
    SELECT
        run_id,
        eval_on,
        split,
        count(*) AS n_slices,
        sum(tp)::BIGINT AS tp,
        sum(fp)::BIGINT AS fp,
        sum(fn)::BIGINT AS fn,
        sum(tn)::BIGINT AS tn
    FROM slice_metrics
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
        sum(n_slices)::BIGINT AS n_slices,
        sum(tp)::BIGINT AS tp,
        sum(fp)::BIGINT AS fp,
        sum(fn)::BIGINT AS fn,
        sum(tn)::BIGINT AS tn,
        avg(iou_fg ORDER BY eval_on) AS iou_fg,
        avg(dice_fg ORDER BY eval_on) AS dice_fg,
        flatten(list(source_totals ORDER BY eval_on)) AS source_totals
    FROM sources
    GROUP BY run_id, split
    HAVING count(*) >= 2
)
SELECT run_id, eval_on, split, n_slices, tp, fp, fn, tn, iou_fg, dice_fg, source_totals
FROM sources
UNION ALL
SELECT run_id, 'macro', split, n_slices, tp, fp, fn, tn, iou_fg, dice_fg, source_totals
FROM paired
UNION ALL
SELECT
    run_id,
    'pooled',
    split,
    n_slices,
    tp,
    fp,
    fn,
    tn,
    tp / (tp + fp + fn + 1e-7),
    2 * tp / (2 * tp + fp + fn + 1e-7),
    source_totals
FROM paired;
COMMENT ON VIEW run_totals IS 'Foreground pixel totals and scores per run, source and split; with two or more sources also macro and pooled.';
COMMENT ON COLUMN run_totals.source_totals IS 'The counts of each source, in order of its name: equal for runs that predicted the same totals.';
