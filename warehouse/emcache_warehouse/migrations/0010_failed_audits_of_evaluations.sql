-- Whether what a run was scored on had failed its audit.

ALTER TABLE evaluations ADD COLUMN audits_failed BOOLEAN[];
COMMENT ON COLUMN evaluations.audits_failed IS 'Whether the audit of each of them had failed, in the same order; NULL in records of older versions.';
