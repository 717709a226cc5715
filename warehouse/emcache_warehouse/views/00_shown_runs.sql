-- The runs that scores and charts are made of. Two variables of the connection widen and narrow them:
-- SET VARIABLE show_hidden = true shows what was set aside, too; SET VARIABLE only_runs = ['...'] shows these alone.
CREATE VIEW shown_runs AS
WITH marks AS (
    SELECT run_id, hidden, why
    FROM run_marks
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY mark_id DESC) = 1
)
SELECT
    runs.*,
    coalesce(marks.hidden, false) AS hidden,
    CASE WHEN marks.hidden THEN marks.why END AS hidden_why
FROM runs
LEFT JOIN marks USING (run_id)
WHERE (NOT coalesce(marks.hidden, false) OR coalesce(getvariable('show_hidden')::BOOLEAN, false))
    AND (
        getvariable('only_runs') IS NULL
        OR run_id IN (SELECT unnest(getvariable('only_runs')::VARCHAR[]))
    );
COMMENT ON VIEW shown_runs IS 'Runs without those that were set aside by `emcache runs hide`: what every score and chart is made of.';
COMMENT ON COLUMN shown_runs.hidden IS 'Whether the run was set aside.';
COMMENT ON COLUMN shown_runs.hidden_why IS 'The reason that was given for setting it aside.';
