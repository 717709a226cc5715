-- The 97.5 % quantile of Student's t for 1 or more degrees of freedom, whole or not, to 0.05 %: its logarithm is
-- interpolated between 21 values that are equidistant in the inverse of the degrees of freedom.
CREATE MACRO student_t(freedom) AS (
    SELECT exp(ln(known[place]) + (20 / freedom - place + 1) * ln(known[place + 1] / known[place]))
    FROM (
        SELECT
            least(floor(20 / freedom)::INTEGER + 1, 20) AS place,
            [
                1.9600, 2.0860, 2.2281, 2.3888, 2.5706, 2.7764, 3.0098,
                3.2744, 3.5747, 3.9155, 4.3027, 4.7425, 5.2423, 5.8105,
                6.4566, 7.1916, 8.0280, 8.9800, 10.0641, 11.2990, 12.7062
            ]::DOUBLE[] AS known
    )
);
-- Half the 95 % interval of a mean over seeds and blocks of slices, whose variances add up (Satterthwaite's degrees of
-- freedom); never narrower than over seeds alone, which more degrees of freedom could make it.
CREATE MACRO interval_reach(n_seeds, of_seeds, of_blocks) AS
    greatest(
        student_t(greatest(n_seeds - 1, 1)::DOUBLE) * sqrt(of_seeds),
        coalesce(
            student_t(
                (of_seeds + of_blocks) ** 2
                / nullif(of_seeds ** 2 / greatest(n_seeds - 1, 1) + of_blocks ** 2 / 4, 0)
            ),
            0
        )
        * sqrt(of_seeds + of_blocks)
    );
-- Foreground IoU of every run without each of five blocks of neighbouring slices, for intervals; of ten slices or more.
CREATE VIEW block_scores AS
WITH named AS (SELECT DISTINCT slice_id FROM slice_counts WHERE class = 'foreground'),
places AS (
    SELECT
        slice_id,
        row_number() OVER (
            ORDER BY
                -- Digits padded, so that slice 10 follows slice 9.
                array_to_string(
                    list_transform(
                        regexp_extract_all(slice_id, '\d+|\D+'),
                        lambda part: CASE
                            WHEN regexp_full_match(part, '\d+') THEN lpad(ltrim(part, '0'), greatest(20, len(part))::INTEGER, '0')
                            ELSE part
                        END
                    ),
                    ''
                ),
                slice_id
        ) AS place
    FROM named
),
ordered AS (
    SELECT counts.*, coalesce(counts.slices_from_training = 0, false) AS seen, places.place
    FROM slice_counts AS counts
    JOIN places USING (slice_id)
    WHERE counts.class = 'foreground'
),
cut AS (
    SELECT *, ntile(5) OVER (PARTITION BY run_id, eval_on, split, seen ORDER BY place) AS block
    FROM ordered
),
blocks AS (
    SELECT
        run_id,
        eval_on,
        split,
        seen,
        block,
        sum(tp) AS tp,
        sum(tp + fp + fn) AS pixels,
        count(*) AS n_slices
    FROM cut
    GROUP BY run_id, eval_on, split, seen, block
)
SELECT
    run_id,
    eval_on,
    split,
    seen,
    block,
    (sum(tp) OVER scored - tp) / (sum(pixels) OVER scored - pixels + 1e-7) AS iou_fg_without
FROM blocks
WINDOW scored AS (PARTITION BY run_id, eval_on, split, seen)
QUALIFY sum(n_slices) OVER scored >= 10;
COMMENT ON VIEW block_scores IS 'Foreground IoU of every run on all slices but those of one of five blocks of neighbours; of ten slices or more.';
COMMENT ON COLUMN block_scores.seen IS 'Whether the run has learned from the pixels of these slices.';
COMMENT ON COLUMN block_scores.block IS 'The block that is left out, 1 to 5.';
COMMENT ON COLUMN block_scores.iou_fg_without IS 'tp / (tp + fp + fn + 1e-7) on the others.';
-- Scores over seeds. Weights, sizes, protocols, arithmetic and test sets never share a row, and neither do
-- slices that runs have learned from and others.
CREATE VIEW leaderboard AS
WITH scores AS (
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
        count(metrics.nothing_learned) AS n_nothing_learned,
        list(metrics.run_id ORDER BY metrics.run_id) AS run_ids
    FROM run_metrics AS metrics
    JOIN run_totals AS totals USING (run_id, eval_on, split, seen)
    GROUP BY ALL
),
members AS (
    SELECT unnest(run_ids) AS run_id, run_ids, eval_on, split, seen, n_runs, iou_fg_std ** 2 / n_runs AS of_seeds
    FROM scores
    WHERE n_runs >= 2
),
without_blocks AS (
    -- The mean over runs without each block.
    SELECT run_ids, eval_on, split, seen, n_runs, of_seeds, block, avg(iou_fg_without ORDER BY run_id) AS iou_fg
    FROM members
    JOIN block_scores USING (run_id, eval_on, split, seen)
    GROUP BY ALL
),
variances AS (
    -- The delete-a-group jackknife: (5 - 1) / 5 of the sum of squares.
    SELECT run_ids, eval_on, split, seen, n_runs, of_seeds, 4 * var_pop(iou_fg ORDER BY block) AS of_blocks
    FROM without_blocks
    GROUP BY ALL
),
reaches AS (
    SELECT run_ids, eval_on, split, seen, interval_reach(n_runs, of_seeds, of_blocks) AS reach
    FROM variances
)
SELECT
    scores.* EXCLUDE (run_ids),
    -- Without a reach there is no interval; greatest and least would leave out the NULL.
    CASE WHEN reach IS NOT NULL THEN greatest(iou_fg_mean - reach, 0) END AS iou_fg_low,
    CASE WHEN reach IS NOT NULL THEN least(iou_fg_mean + reach, 1) END AS iou_fg_high
FROM scores
LEFT JOIN reaches USING (run_ids, eval_on, split, seen);
COMMENT ON VIEW leaderboard IS 'Mean and spread of the foreground IoU over runs that differ in nothing but the seed.';
COMMENT ON COLUMN leaderboard.seen IS 'Whether the runs have learned from the pixels of these slices: then the score is no test.';
COMMENT ON COLUMN leaderboard.data IS 'Where rows would look alike: twelve digits of a hash of slices, splits and masks, in which they differ. NULL elsewhere.';
COMMENT ON COLUMN leaderboard.n_near IS 'Of these slices, those within 5 places of one that the runs have learned from.';
COMMENT ON COLUMN leaderboard.n_runs IS 'Runs in the row.';
COMMENT ON COLUMN leaderboard.iou_fg_mean IS 'Mean foreground IoU over the runs.';
COMMENT ON COLUMN leaderboard.iou_fg_std IS 'Sample standard deviation; NULL for one run.';
COMMENT ON COLUMN leaderboard.distinct_results IS 'Runs with different pixel totals; fewer than n_runs means identical repeats.';
COMMENT ON COLUMN leaderboard.n_nothing_learned IS 'Of the runs, those whose training is known to have come to nothing; they are part of the mean.';
COMMENT ON COLUMN leaderboard.iou_fg_low IS 'Lower end of the 95 % interval of the mean, over seeds and over blocks of neighbouring slices; NULL for one run, for fewer than ten slices, and for macro and pooled.';
COMMENT ON COLUMN leaderboard.iou_fg_high IS 'Its upper end.';
