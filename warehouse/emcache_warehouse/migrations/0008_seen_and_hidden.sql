-- What a run has learned from, whether it learned anything, and runs that are set aside.

ALTER TABLE slice_metrics ADD COLUMN slices_from_training BIGINT;
ALTER TABLE evaluation_metrics ADD COLUMN slices_from_training BIGINT;
ALTER TABLE runs ADD COLUMN nothing_learned VARCHAR;
COMMENT ON COLUMN slice_metrics.slices_from_training IS 'Places in its stack to the nearest slice that the run has learned from: 0 where it has seen these pixels; NULL where the stack has none, and in records of older versions.';
COMMENT ON COLUMN evaluation_metrics.slices_from_training IS 'Places in its stack to the nearest slice that the run has learned from: 0 where it has seen these pixels; NULL where the stack has none, and in records of older versions.';
COMMENT ON COLUMN runs.nothing_learned IS 'Why the training is known to have come to nothing: a constant prediction, or a loss that did not move; NULL elsewhere, and in records of older versions.';

CREATE TABLE training_slices (
    run_id       VARCHAR NOT NULL,
    dataset      VARCHAR NOT NULL,
    slice_id     VARCHAR NOT NULL,
    part         VARCHAR NOT NULL,
    pixel_sha256 VARCHAR NOT NULL,
    PRIMARY KEY (run_id, dataset, slice_id)
);
COMMENT ON TABLE training_slices IS 'The slices that each run has learned from.';
COMMENT ON COLUMN training_slices.run_id IS 'Record of the run.';
COMMENT ON COLUMN training_slices.dataset IS 'Name of the dataset.';
COMMENT ON COLUMN training_slices.slice_id IS 'Name of the slice within its dataset.';
COMMENT ON COLUMN training_slices.part IS 'train: steps are made of it; validation: it helps to choose the best epoch.';
COMMENT ON COLUMN training_slices.pixel_sha256 IS 'SHA-256 of the decoded image.';

CREATE TABLE run_marks (
    mark_id VARCHAR NOT NULL,
    run_id  VARCHAR NOT NULL,
    hidden  BOOLEAN NOT NULL,
    why     VARCHAR,
    PRIMARY KEY (mark_id, run_id)
);
COMMENT ON TABLE run_marks IS 'Every time that a run was set aside or taken back; the newest of a run counts.';
COMMENT ON COLUMN run_marks.mark_id IS 'Record of the command.';
COMMENT ON COLUMN run_marks.run_id IS 'Record of the run.';
COMMENT ON COLUMN run_marks.hidden IS 'True where it was set aside, false where it was taken back.';
COMMENT ON COLUMN run_marks.why IS 'The reason that was given.';
