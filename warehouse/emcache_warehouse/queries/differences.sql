-- Paired differences between every two setups on the same test slices, b less a, with 95 % intervals over seeds and blocks of slices. They are not corrected for the number of comparisons; `emcache compare` does that.
-- columns: eval_on, regime_a, backbone_a, protocol_a, train_on_a, setup_a, regime_b, backbone_b, protocol_b, train_on_b, setup_b, n_seeds, n_slices, iou_fg_a, iou_fg_b, difference, difference_low, difference_high, answer
WITH slices AS (
    SELECT run_id, eval_on, md5(string_agg(slice_id, '|' ORDER BY slice_id)) AS which, count(*) AS n_slices
    FROM slice_counts
    WHERE class = 'foreground' AND split = 'test' AND coalesce(slices_from_training <> 0, true)
    GROUP BY run_id, eval_on
),
scored AS (
    -- Of several runs of one setup and seed the newest.
    SELECT runs.*, scores.eval_on, scores.iou_fg, slices.which, slices.n_slices
    FROM shown_runs AS runs
    JOIN run_metrics AS scores USING (run_id)
    JOIN slices USING (run_id, eval_on)
    WHERE scores.split = 'test' AND NOT scores.seen AND runs.setup_fingerprint IS NOT NULL
    QUALIFY runs.run_id = max(runs.run_id) OVER (PARTITION BY runs.setup_fingerprint, scores.eval_on, runs.seed)
),
pairs AS (
    SELECT
        a.eval_on,
        a.setup_fingerprint AS setup_a,
        b.setup_fingerprint AS setup_b,
        a.run_id AS run_a,
        b.run_id AS run_b,
        a.n_slices,
        a.iou_fg AS iou_a,
        b.iou_fg AS iou_b
    FROM scored AS a
    JOIN scored AS b
        ON a.eval_on = b.eval_on
        AND a.seed = b.seed
        AND a.which = b.which
        AND a.setup_fingerprint < b.setup_fingerprint
),
compared AS (
    SELECT
        eval_on,
        setup_a,
        setup_b,
        any_value(n_slices) AS n_slices,
        count(*) AS n_seeds,
        avg(iou_a ORDER BY run_a) AS iou_fg_a,
        avg(iou_b ORDER BY run_b) AS iou_fg_b,
        avg(iou_b - iou_a ORDER BY run_a) AS difference,
        var_samp(iou_b - iou_a ORDER BY run_a) / count(*) AS of_seeds
    FROM pairs
    GROUP BY eval_on, setup_a, setup_b
),
without_blocks AS (
    SELECT
        pairs.eval_on,
        setup_a,
        setup_b,
        a.block,
        avg(b.iou_fg_without - a.iou_fg_without ORDER BY run_a) AS difference
    FROM pairs
    JOIN block_scores AS a ON a.run_id = run_a AND a.eval_on = pairs.eval_on AND a.split = 'test' AND NOT a.seen
    JOIN block_scores AS b
        ON b.run_id = run_b AND b.eval_on = pairs.eval_on AND b.split = 'test' AND NOT b.seen AND b.block = a.block
    GROUP BY ALL
),
variances AS (
    -- The delete-a-group jackknife: (5 - 1) / 5 of the sum of squares.
    SELECT eval_on, setup_a, setup_b, 4 * var_pop(difference ORDER BY block) AS of_blocks
    FROM without_blocks
    GROUP BY ALL
),
reaches AS (
    SELECT
        compared.*,
        CASE
            WHEN n_seeds >= 3 AND of_blocks IS NOT NULL THEN interval_reach(n_seeds, of_seeds, of_blocks)
        END AS reach
    FROM compared
    LEFT JOIN variances USING (eval_on, setup_a, setup_b)
),
setups AS (
    SELECT DISTINCT ON (setup_fingerprint) setup_fingerprint, regime, backbone, protocol, train_on
    FROM scored
    ORDER BY setup_fingerprint, run_id
)
SELECT
    reaches.eval_on,
    a.regime AS regime_a,
    a.backbone AS backbone_a,
    a.protocol AS protocol_a,
    a.train_on AS train_on_a,
    left(reaches.setup_a, 12) AS setup_a,
    b.regime AS regime_b,
    b.backbone AS backbone_b,
    b.protocol AS protocol_b,
    b.train_on AS train_on_b,
    left(reaches.setup_b, 12) AS setup_b,
    n_seeds,
    n_slices,
    iou_fg_a,
    iou_fg_b,
    difference,
    difference - reach AS difference_low,
    difference + reach AS difference_high,
    CASE
        WHEN n_seeds < 3 THEN 'too few seeds in common; it takes 3'
        WHEN n_slices < 10 THEN 'too few slices for 5 blocks; it takes 10'
        WHEN difference > reach THEN 'b is better'
        WHEN -difference > reach THEN 'a is better'
        ELSE 'not told apart'
    END AS answer
FROM reaches
JOIN setups AS a ON a.setup_fingerprint = reaches.setup_a
JOIN setups AS b ON b.setup_fingerprint = reaches.setup_b
ORDER BY reaches.eval_on, reaches.setup_a, reaches.setup_b;
