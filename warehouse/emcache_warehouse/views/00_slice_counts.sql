-- Pixel counts of every run, slice and class: those of the training itself, and of what it did not score those
-- of the newest evaluation.
CREATE VIEW slice_counts AS
WITH evaluated AS (
    SELECT
        evaluations.run_id,
        counts.* EXCLUDE (evaluation_id),
        evaluations.data_keys[list_position(evaluations.eval_on, counts.eval_on)] AS data_key,
        evaluations.audits_failed[
            list_position(evaluations.eval_on, counts.eval_on)
        ] AS audit_failed
    FROM evaluation_metrics AS counts
    JOIN evaluations USING (evaluation_id)
    ANTI JOIN slice_metrics AS own
        ON own.run_id = evaluations.run_id
        AND own.eval_on = counts.eval_on
        AND own.split = counts.split
    QUALIFY counts.evaluation_id = max(counts.evaluation_id) OVER (
        PARTITION BY evaluations.run_id, counts.eval_on, counts.split
    )
)
SELECT *, NULL AS data_key, NULL::BOOLEAN AS audit_failed
FROM slice_metrics
UNION ALL BY NAME
SELECT * FROM evaluated;
COMMENT ON VIEW slice_counts IS 'Pixel counts of every run, slice and class: of the training itself, else of the newest evaluation.';
COMMENT ON COLUMN slice_counts.data_key IS 'Hash of everything on the data''s side that the counts depend on; NULL for those of the training itself.';
COMMENT ON COLUMN slice_counts.audit_failed IS 'Whether the audit of the data had failed; NULL for those of the training itself.';
