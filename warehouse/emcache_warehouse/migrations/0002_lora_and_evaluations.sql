-- Runs of the LoRA regime, sizes by physical scale, and evaluations of runs on other data.

ALTER TABLE runs ALTER COLUMN longest_edge DROP NOT NULL;
ALTER TABLE runs ADD COLUMN pixel_size_nm DOUBLE;
ALTER TABLE runs ADD COLUMN feature_fingerprints VARCHAR[];
ALTER TABLE runs ADD COLUMN run_fingerprint VARCHAR;
ALTER TABLE runs ADD COLUMN setup_fingerprint VARCHAR;
ALTER TABLE runs ADD COLUMN trainable_parameters BIGINT;
ALTER TABLE runs ADD COLUMN adapter_parameters BIGINT;
ALTER TABLE runs ADD COLUMN adapted_modules VARCHAR[];
-- What older records say of it already.
UPDATE runs
SET feature_fingerprints = (records.config->>'feature_fingerprints')::VARCHAR[]
FROM records
WHERE records.record_id = runs.run_id;
COMMENT ON COLUMN runs.longest_edge IS 'Target of the longest edge in pixels; NULL where pixel_size_nm sets the size.';
COMMENT ON COLUMN runs.pixel_size_nm IS 'Pitch of pixels in nanometres that every slice was brought to, or NULL.';
COMMENT ON COLUMN runs.feature_fingerprints IS 'Hash of everything that decides the tokens of the bare backbone, in the order of train_on.';
COMMENT ON COLUMN runs.run_fingerprint IS 'Hash of everything that could change the result but the machine.';
COMMENT ON COLUMN runs.setup_fingerprint IS 'The same without the seed: equal for runs that differ in the seed alone.';
COMMENT ON COLUMN runs.trainable_parameters IS 'Parameters that were trained: head, and adapter where there is one.';
COMMENT ON COLUMN runs.adapter_parameters IS 'Parameters of the LoRA adapter; NULL for a frozen backbone.';
COMMENT ON COLUMN runs.adapted_modules IS 'Layers of the backbone that carry an adapter; NULL for a frozen backbone.';

ALTER TABLE feature_sets ALTER COLUMN longest_edge DROP NOT NULL;
ALTER TABLE feature_sets ADD COLUMN pixel_size_nm DOUBLE;
COMMENT ON COLUMN feature_sets.longest_edge IS 'Target of the longest edge in pixels, before flooring to the patch; NULL where pixel_size_nm sets the size.';
COMMENT ON COLUMN feature_sets.pixel_size_nm IS 'Pitch of pixels in nanometres that every slice was brought to, or NULL.';

CREATE TABLE evaluations (
    evaluation_id VARCHAR PRIMARY KEY,
    run_id        VARCHAR NOT NULL,
    eval_on       VARCHAR[] NOT NULL,
    data_keys     VARCHAR[] NOT NULL,
    device        VARCHAR,
    seconds       DOUBLE
);
COMMENT ON TABLE evaluations IS 'One row per evaluation of a trained run on data that it may not have been trained on.';
COMMENT ON COLUMN evaluations.evaluation_id IS 'Record of the evaluation.';
COMMENT ON COLUMN evaluations.run_id IS 'Record of the run that was evaluated.';
COMMENT ON COLUMN evaluations.eval_on IS 'Datasets that were predicted.';
COMMENT ON COLUMN evaluations.data_keys IS 'Hash of slices, splits, masks and preprocessing of each of them, in the same order.';
COMMENT ON COLUMN evaluations.device IS 'Device of the evaluation.';
COMMENT ON COLUMN evaluations.seconds IS 'Wall-clock seconds.';

CREATE TABLE evaluation_metrics (
    evaluation_id VARCHAR NOT NULL,
    eval_on       VARCHAR NOT NULL,
    split         VARCHAR NOT NULL,
    slice_id      VARCHAR NOT NULL,
    class         VARCHAR NOT NULL,
    tp            BIGINT NOT NULL,
    fp            BIGINT NOT NULL,
    fn            BIGINT NOT NULL,
    tn            BIGINT NOT NULL,
    PRIMARY KEY (evaluation_id, eval_on, split, slice_id, class)
);
COMMENT ON TABLE evaluation_metrics IS 'Pixel counts per evaluation, slice and class; as slice_metrics, which holds those of the training itself.';
COMMENT ON COLUMN evaluation_metrics.evaluation_id IS 'Record of the evaluation.';
COMMENT ON COLUMN evaluation_metrics.eval_on IS 'Dataset the slice belongs to.';
COMMENT ON COLUMN evaluation_metrics.split IS 'Split the slice belongs to.';
COMMENT ON COLUMN evaluation_metrics.slice_id IS 'Name of the slice within its dataset.';
COMMENT ON COLUMN evaluation_metrics.class IS 'foreground, or another class beside it.';
COMMENT ON COLUMN evaluation_metrics.tp IS 'Pixels predicted and labelled as the class.';
COMMENT ON COLUMN evaluation_metrics.fp IS 'Pixels predicted as the class and labelled otherwise.';
COMMENT ON COLUMN evaluation_metrics.fn IS 'Pixels labelled as the class and predicted otherwise.';
COMMENT ON COLUMN evaluation_metrics.tn IS 'All other pixels.';
