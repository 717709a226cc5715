-- Paired differences of test scores over the seeds that both sides have, with 95 % intervals.
CREATE VIEW alignment_differences AS
WITH pairs AS (
    SELECT
        if(ours.setting = 'together', 'together less alone', 'transfer with less without') AS comparison,
        ours.*,
        theirs.iou_fg AS iou_before,
        coalesce(ours.audit_accepted, false) OR coalesce(theirs.audit_accepted, false) AS failed
    FROM aligned_scores AS ours
    JOIN aligned_scores AS theirs
        ON theirs.aligned_by = 'none'
        AND (
            (ours.setting = 'together' AND theirs.setting = 'alone')
            OR (
                ours.setting = 'transfer' AND theirs.setting = 'transfer' AND ours.aligned_by <> 'none'
                AND theirs.train_on = ours.train_on
            )
        )
        AND theirs.eval_on = ours.eval_on
        AND theirs.seed = ours.seed
        AND theirs.backbone = ours.backbone
        AND theirs.weights = ours.weights
        AND theirs.longest_edge IS NOT DISTINCT FROM ours.longest_edge
        AND theirs.pixel_size_nm IS NOT DISTINCT FROM ours.pixel_size_nm
        AND theirs.regime = ours.regime
        AND theirs.protocol = ours.protocol
        AND theirs."precision" = ours."precision"
        AND theirs.n_slices = ours.n_slices
    -- Of a training that was made twice, the newest.
    QUALIFY row_number() OVER (
        PARTITION BY
            ours.setting, ours.eval_on, ours.train_on, ours.aligned_by, ours.backbone, ours.weights, ours.longest_edge,
            ours.pixel_size_nm, ours.regime, ours.protocol, ours.sampling, ours."precision", ours.data, ours.n_slices,
            ours.seed
        ORDER BY ours.run_id DESC, theirs.run_id DESC
    ) = 1
),
differences AS (
    SELECT
        comparison,
        eval_on,
        train_on,
        aligned_by,
        backbone,
        weights,
        longest_edge,
        pixel_size_nm,
        regime,
        protocol,
        count(*) AS n_seeds,
        avg(iou_before) AS iou_before,
        avg(iou_fg) AS iou_after,
        avg(iou_fg - iou_before) AS iou_change,
        -- The 97.5 % quantile of Student's t for up to nine seeds; beyond, it lies between 2.3 and 1.96.
        coalesce(
            [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306][count(*) - 1], 2.3
        ) * stddev_samp(iou_fg - iou_before) / sqrt(count(*)) AS half,
        bool_or(failed) AS failed
    FROM pairs
    GROUP BY
        comparison, eval_on, train_on, aligned_by, backbone, weights, longest_edge, pixel_size_nm, regime, protocol, sampling,
        "precision", data, n_slices
)
SELECT
    comparison,
    eval_on,
    train_on,
    aligned_by,
    backbone,
    weights,
    longest_edge,
    pixel_size_nm,
    regime,
    protocol,
    n_seeds,
    iou_before,
    iou_after,
    iou_change,
    iou_change - half AS iou_change_low,
    iou_change + half AS iou_change_high,
    CASE
        WHEN failed THEN 'an audit failed'
        WHEN n_seeds < 3 THEN 'too few seeds'
        WHEN iou_change - half > 0 THEN 'better'
        WHEN iou_change + half < 0 THEN 'worse'
        ELSE 'not told apart'
    END AS answer
FROM differences;
COMMENT ON VIEW alignment_differences IS 'What alignment changes: training together less alone, and transfer with alignment less transfer without, seed by seed.';
COMMENT ON COLUMN alignment_differences.comparison IS 'together less alone, or transfer with less without.';
COMMENT ON COLUMN alignment_differences.n_seeds IS 'Seeds that both sides have.';
COMMENT ON COLUMN alignment_differences.iou_before IS 'Mean IoU alone, or without alignment.';
COMMENT ON COLUMN alignment_differences.iou_after IS 'Mean IoU together, or with alignment.';
COMMENT ON COLUMN alignment_differences.iou_change IS 'Mean over seeds of the difference of the two.';
COMMENT ON COLUMN alignment_differences.iou_change_low IS 'Lower end of its 95 % interval, by Student''s t over seeds.';
COMMENT ON COLUMN alignment_differences.iou_change_high IS 'Upper end.';
COMMENT ON COLUMN alignment_differences.answer IS 'better or worse where the interval leaves 0 out, else not told apart; none with fewer than three seeds, or where an audit failed.';
