-- Scores of every run, with what identifies the run.
CREATE VIEW run_metrics AS
WITH scores AS (
    SELECT
        runs.run_id,
        runs.regime,
        runs.backbone,
        runs.weights,
        runs.longest_edge,
        runs.protocol,
        runs.train_on,
        runs.sampling,
        runs."precision",
        runs.seed,
        run_totals.eval_on,
        run_totals.split,
        run_totals.seen,
        -- A failed audit of what was trained on, or of what is scored.
        CASE WHEN run_totals.audit_failed THEN true ELSE runs.audit_accepted END AS audit_accepted,
        runs.nothing_learned,
        run_totals.n_slices,
        run_totals.n_near,
        run_totals.iou_fg,
        run_totals.dice_fg,
        md5(
            concat_ws(
                '|',
                runs.setup_fingerprint,
                runs.feature_fingerprints::VARCHAR,
                runs.label_sets::VARCHAR,
                run_totals.data_key
            )
        ) AS experiment
    FROM shown_runs AS runs
    JOIN run_totals USING (run_id)
)
SELECT
    * EXCLUDE (experiment),
    -- Other splits, corrected masks or changed slices make other experiments, though none of the other
    -- columns tells them apart. The leaderboard groups by these digits: fewer collide among thousands of rows.
    CASE
        WHEN min(experiment) OVER alike <> max(experiment) OVER alike THEN left(experiment, 12)
    END AS data
FROM scores
WINDOW alike AS (
    PARTITION BY
        regime,
        backbone,
        weights,
        longest_edge,
        protocol,
        train_on,
        sampling,
        "precision",
        eval_on,
        split,
        seen,
        audit_accepted,
        n_slices,
        n_near
);
COMMENT ON VIEW run_metrics IS 'Foreground IoU and Dice of every run on dataset-level pixel totals; eval_on is a dataset, macro or pooled.';
COMMENT ON COLUMN run_metrics.eval_on IS 'A dataset; macro is the mean over datasets, pooled the score of the summed counts.';
COMMENT ON COLUMN run_metrics.seen IS 'Whether the run has learned from the pixels of these slices: then the score is no test.';
COMMENT ON COLUMN run_metrics.audit_accepted IS 'Whether the data of the training, or of this score, had failed an audit; NULL where none was made.';
COMMENT ON COLUMN run_metrics.nothing_learned IS 'Why the training is known to have come to nothing; NULL elsewhere.';
COMMENT ON COLUMN run_metrics.n_near IS 'Of these slices, those within 5 places of one that the run has learned from.';
COMMENT ON COLUMN run_metrics.iou_fg IS 'tp / (tp + fp + fn + 1e-7).';
COMMENT ON COLUMN run_metrics.dice_fg IS '2 tp / (2 tp + fp + fn + 1e-7).';
COMMENT ON COLUMN run_metrics.data IS 'Where runs would look alike: twelve digits of a hash of slices, splits and masks, in which they differ. NULL elsewhere.';
