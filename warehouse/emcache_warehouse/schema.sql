-- Every table: a row belongs to the record that its id names. Views and the study's figures stand
-- beside this file; a database that was made by other files is made again from the records.

CREATE TABLE records (
    record_id   VARCHAR PRIMARY KEY,
    kind        VARCHAR NOT NULL,
    status      VARCHAR NOT NULL,
    started_at  TIMESTAMP NOT NULL,
    finished_at TIMESTAMP NOT NULL,
    seconds     DOUBLE NOT NULL,
    versions    JSON NOT NULL,
    host        JSON NOT NULL,
    config      JSON NOT NULL
);
COMMENT ON TABLE records IS 'Every record that has been ingested, as its record.json says.';
COMMENT ON COLUMN records.record_id IS 'Folder below runs/; sorts by time.';
COMMENT ON COLUMN records.kind IS 'dataset, extract, train-head, or another kind, which has this row alone.';
COMMENT ON COLUMN records.status IS 'finished.';
COMMENT ON COLUMN records.started_at IS 'Start of the command, UTC.';
COMMENT ON COLUMN records.finished_at IS 'End of the command, UTC.';
COMMENT ON COLUMN records.seconds IS 'Wall-clock time between the two.';
COMMENT ON COLUMN records.versions IS 'Versions of emcache, Python and the packages that shape a result.';
COMMENT ON COLUMN records.host IS 'Machine, system and number of cores.';
COMMENT ON COLUMN records.config IS 'The resolved configuration, whole; the other tables are cut from it.';

CREATE TABLE datasets (
    dataset       VARCHAR PRIMARY KEY,
    record_id     VARCHAR NOT NULL,
    layout        VARCHAR,
    root          VARCHAR,
    pairing       VARCHAR,
    n_slices      BIGINT,
    n_labelled    BIGINT,
    grey_pixels   BIGINT,
    voxel_size_nm DOUBLE[]
);
COMMENT ON TABLE datasets IS 'Each dataset as its newest record describes it.';
COMMENT ON COLUMN datasets.dataset IS 'Name in emcache.toml.';
COMMENT ON COLUMN datasets.record_id IS 'The newest record of this dataset.';
COMMENT ON COLUMN datasets.layout IS 'vnc, folder, ...';
COMMENT ON COLUMN datasets.root IS 'Folder the slices were read from.';
COMMENT ON COLUMN datasets.pairing IS 'How images and masks were paired, in words.';
COMMENT ON COLUMN datasets.n_slices IS 'Slices, labelled or not.';
COMMENT ON COLUMN datasets.n_labelled IS 'Slices that have a mask.';
COMMENT ON COLUMN datasets.grey_pixels IS 'Mask pixels strictly between 0 and 255.';
COMMENT ON COLUMN datasets.voxel_size_nm IS 'Size of a voxel in nanometres, (z, y, x); NULL where not stated.';

CREATE TABLE slices (
    dataset             VARCHAR NOT NULL,
    record_id           VARCHAR NOT NULL,
    slice_id            VARCHAR NOT NULL,
    position            BIGINT NOT NULL,
    split               VARCHAR,
    image               VARCHAR NOT NULL,
    mask                VARCHAR,
    height              BIGINT NOT NULL,
    width               BIGINT NOT NULL,
    pixel_sha256        VARCHAR NOT NULL,
    mask_sha256         VARCHAR,
    foreground_fraction DOUBLE,
    grey_pixels         BIGINT
);
COMMENT ON TABLE slices IS 'The slices of each dataset, from its newest record.';
COMMENT ON COLUMN slices.dataset IS 'Name of the dataset.';
COMMENT ON COLUMN slices.record_id IS 'The newest record of the dataset.';
COMMENT ON COLUMN slices.slice_id IS 'Name of the slice within its dataset.';
COMMENT ON COLUMN slices.position IS 'Place in the natural order, from 0.';
COMMENT ON COLUMN slices.split IS 'train, test, ...; NULL where the dataset has no splits.';
COMMENT ON COLUMN slices.image IS 'Image file, relative to the root.';
COMMENT ON COLUMN slices.mask IS 'Mask file, relative to the root; NULL for an unlabelled slice.';
COMMENT ON COLUMN slices.height IS 'Height in pixels.';
COMMENT ON COLUMN slices.width IS 'Width in pixels.';
COMMENT ON COLUMN slices.pixel_sha256 IS 'SHA-256 of the decoded image.';
COMMENT ON COLUMN slices.mask_sha256 IS 'SHA-256 of the decoded mask.';
COMMENT ON COLUMN slices.foreground_fraction IS 'Share of the mask that is foreground.';
COMMENT ON COLUMN slices.grey_pixels IS 'Mask pixels strictly between 0 and 255.';

CREATE TABLE feature_sets (
    record_id       VARCHAR PRIMARY KEY,
    feature_set     VARCHAR NOT NULL,
    fingerprint     VARCHAR,
    recipe_sha256   VARCHAR,
    dataset         VARCHAR NOT NULL,
    split           VARCHAR,
    backbone        VARCHAR NOT NULL,
    weights         VARCHAR NOT NULL,
    weights_sha256  VARCHAR,
    longest_edge    BIGINT,
    patch           BIGINT,
    dim             BIGINT,
    layer           VARCHAR,
    dtype           VARCHAR,
    precision       VARCHAR,
    device          VARCHAR,
    n_slices        BIGINT,
    n_computed      BIGINT,
    n_copied        BIGINT,
    token_bytes     BIGINT,
    total_bytes     BIGINT,
    n_files         BIGINT,
    compute_seconds DOUBLE,
    pixel_size_nm   DOUBLE
);
COMMENT ON TABLE feature_sets IS 'One row per extraction; a feature set that was extracted again, after pruning say, has several.';
COMMENT ON COLUMN feature_sets.record_id IS 'Record of the extraction.';
COMMENT ON COLUMN feature_sets.feature_set IS 'Folder below cache/.';
COMMENT ON COLUMN feature_sets.fingerprint IS 'Hash of everything that could change the tokens.';
COMMENT ON COLUMN feature_sets.recipe_sha256 IS 'Hash of the same without the slices.';
COMMENT ON COLUMN feature_sets.dataset IS 'Dataset whose slices were embedded.';
COMMENT ON COLUMN feature_sets.split IS 'Split that was embedded; NULL for all labelled slices.';
COMMENT ON COLUMN feature_sets.backbone IS 'Name of the backbone.';
COMMENT ON COLUMN feature_sets.weights IS 'pretrained, random:SEED (untrained), hf:REPOSITORY@COMMIT, a short name, or file:NAME@HASH.';
COMMENT ON COLUMN feature_sets.weights_sha256 IS 'Hash of the bytes of the weights.';
COMMENT ON COLUMN feature_sets.longest_edge IS 'Target of the longest edge in pixels, before flooring to the patch; NULL where pixel_size_nm sets the size.';
COMMENT ON COLUMN feature_sets.patch IS 'Edge of a patch in pixels.';
COMMENT ON COLUMN feature_sets.dim IS 'Channels of a token.';
COMMENT ON COLUMN feature_sets.layer IS 'Layer the tokens come from.';
COMMENT ON COLUMN feature_sets.dtype IS 'Type of the stored tokens.';
COMMENT ON COLUMN feature_sets.precision IS 'Type the backbone computed in.';
COMMENT ON COLUMN feature_sets.device IS 'Device the backbone ran on.';
COMMENT ON COLUMN feature_sets.n_slices IS 'Slices in the feature set.';
COMMENT ON COLUMN feature_sets.n_computed IS 'Slices that went through the backbone.';
COMMENT ON COLUMN feature_sets.n_copied IS 'Slices copied from an older feature set.';
COMMENT ON COLUMN feature_sets.token_bytes IS 'Bytes of the token arrays.';
COMMENT ON COLUMN feature_sets.total_bytes IS 'Bytes of the whole feature set on disk.';
COMMENT ON COLUMN feature_sets.n_files IS 'Files of the feature set.';
COMMENT ON COLUMN feature_sets.compute_seconds IS 'Wall-clock seconds of the backbone passes and the writing.';
COMMENT ON COLUMN feature_sets.pixel_size_nm IS 'Pitch of pixels in nanometres that every slice was brought to, or NULL.';

CREATE TABLE runs (
    run_id               VARCHAR PRIMARY KEY,
    regime               VARCHAR NOT NULL,
    backbone             VARCHAR NOT NULL,
    weights              VARCHAR NOT NULL,
    weights_sha256       VARCHAR,
    longest_edge         BIGINT,
    protocol             VARCHAR NOT NULL,
    protocol_fields      JSON,
    train_on             VARCHAR NOT NULL,
    sampling             VARCHAR NOT NULL,
    seed                 BIGINT NOT NULL,
    head                 VARCHAR,
    head_parameters      BIGINT,
    audit_accepted       BOOLEAN,
    precision            VARCHAR,
    device               VARCHAR,
    resident             VARCHAR,
    feature_sets         VARCHAR[],
    label_sets           VARCHAR[],
    epochs_run           BIGINT,
    best_epoch           BIGINT,
    best_val_loss        DOUBLE,
    stopped_by           VARCHAR,
    n_train              BIGINT,
    n_val                BIGINT,
    train_seconds        DOUBLE,
    pixel_size_nm        DOUBLE,
    feature_fingerprints VARCHAR[],
    run_fingerprint      VARCHAR,
    setup_fingerprint    VARCHAR,
    trainable_parameters BIGINT,
    adapter_parameters   BIGINT,
    adapted_modules      VARCHAR[],
    nothing_learned      VARCHAR,
    peak_memory_bytes    BIGINT,
    annotated_slices     BIGINT,
    labelled_pixels      BIGINT,
    clicks               BIGINT
);
COMMENT ON TABLE runs IS 'One row per training run.';
COMMENT ON COLUMN runs.run_id IS 'Record of the run.';
COMMENT ON COLUMN runs.regime IS 'frozen: the head alone; lora: adapters with it; full: all of the backbone; few-label: a head fitted to a few points; supervised: a U-Net on the slices; zero-shot: a text prompt.';
COMMENT ON COLUMN runs.backbone IS 'Name of the backbone.';
COMMENT ON COLUMN runs.weights IS 'pretrained, random:SEED (untrained), hf:REPOSITORY@COMMIT, a short name, or file:NAME@HASH.';
COMMENT ON COLUMN runs.weights_sha256 IS 'Hash of the bytes of the weights.';
COMMENT ON COLUMN runs.longest_edge IS 'Target of the longest edge in pixels; NULL where pixel_size_nm sets the size.';
COMMENT ON COLUMN runs.protocol IS 'paper, or paper[...] with the fields that differ from it.';
COMMENT ON COLUMN runs.protocol_fields IS 'Every field of the protocol.';
COMMENT ON COLUMN runs.train_on IS 'Names of the datasets, joined by " + ".';
COMMENT ON COLUMN runs.sampling IS 'natural or balanced.';
COMMENT ON COLUMN runs.seed IS 'Training seed.';
COMMENT ON COLUMN runs.head IS 'Kind of head.';
COMMENT ON COLUMN runs.head_parameters IS 'Trainable parameters of the head.';
COMMENT ON COLUMN runs.audit_accepted IS 'Whether the run was trained though an audit of its data failed; NULL where nothing was audited.';
COMMENT ON COLUMN runs.precision IS 'Type the training computed in.';
COMMENT ON COLUMN runs.device IS 'Device of the training.';
COMMENT ON COLUMN runs.resident IS 'Where the tokens were held: device, ram or disk.';
COMMENT ON COLUMN runs.feature_sets IS 'Feature sets that were read, in the order of train_on.';
COMMENT ON COLUMN runs.label_sets IS 'Label sets that were read, in the same order.';
COMMENT ON COLUMN runs.epochs_run IS 'Epochs until training stopped.';
COMMENT ON COLUMN runs.best_epoch IS 'Epoch of the lowest validation loss; its checkpoint is what is tested.';
COMMENT ON COLUMN runs.best_val_loss IS 'Validation loss at best_epoch.';
COMMENT ON COLUMN runs.stopped_by IS 'What ended the training.';
COMMENT ON COLUMN runs.n_train IS 'Training slices, validation excluded.';
COMMENT ON COLUMN runs.n_val IS 'Validation slices.';
COMMENT ON COLUMN runs.train_seconds IS 'Wall-clock seconds of the training.';
COMMENT ON COLUMN runs.pixel_size_nm IS 'Pitch of pixels in nanometres that every slice was brought to, or NULL.';
COMMENT ON COLUMN runs.feature_fingerprints IS 'Hash of everything that decides the tokens of the bare backbone, in the order of train_on.';
COMMENT ON COLUMN runs.run_fingerprint IS 'Hash of everything that could change the result but the machine.';
COMMENT ON COLUMN runs.setup_fingerprint IS 'The same without the seed: equal for runs that differ in the seed alone.';
COMMENT ON COLUMN runs.trainable_parameters IS 'Parameters that were trained: of the head, and of adapters or backbone where they were.';
COMMENT ON COLUMN runs.adapter_parameters IS 'Parameters of the LoRA adapter; NULL for a frozen backbone.';
COMMENT ON COLUMN runs.adapted_modules IS 'Layers of the backbone that carry an adapter; NULL for a frozen backbone.';
COMMENT ON COLUMN runs.nothing_learned IS 'Why the training is known to have come to nothing: a constant prediction, or a loss that did not move; NULL elsewhere, and in records of older versions.';
COMMENT ON COLUMN runs.peak_memory_bytes IS 'Most memory that the training held: of a GPU what PyTorch allocated, otherwise the whole process; NULL where the system does not say, and in records of older versions.';
COMMENT ON COLUMN runs.annotated_slices IS 'Training slices that had to be annotated, those of the validation included; NULL in records of older versions.';
COMMENT ON COLUMN runs.labelled_pixels IS 'Pixels of these that had to be labelled, at their own size.';
COMMENT ON COLUMN runs.clicks IS 'Labelled points on foreground, of a head that was fitted to a few; NULL elsewhere.';

CREATE TABLE epochs (
    run_id     VARCHAR NOT NULL,
    epoch      BIGINT NOT NULL,
    train_loss DOUBLE,
    val_loss   DOUBLE,
    val_iou_fg DOUBLE,
    seconds    DOUBLE,
    PRIMARY KEY (run_id, epoch)
);
COMMENT ON TABLE epochs IS 'One row per epoch of a run.';
COMMENT ON COLUMN epochs.run_id IS 'Record of the run.';
COMMENT ON COLUMN epochs.epoch IS 'Number of the epoch, as the run counts it.';
COMMENT ON COLUMN epochs.train_loss IS 'Mean training loss.';
COMMENT ON COLUMN epochs.val_loss IS 'Mean validation loss.';
COMMENT ON COLUMN epochs.val_iou_fg IS 'Foreground IoU on the validation slices.';
COMMENT ON COLUMN epochs.seconds IS 'Wall-clock seconds of the epoch.';

CREATE TABLE slice_metrics (
    run_id               VARCHAR NOT NULL,
    eval_on              VARCHAR NOT NULL,
    split                VARCHAR NOT NULL,
    slice_id             VARCHAR NOT NULL,
    class                VARCHAR NOT NULL,
    tp                   BIGINT NOT NULL,
    fp                   BIGINT NOT NULL,
    fn                   BIGINT NOT NULL,
    tn                   BIGINT NOT NULL,
    slices_from_training BIGINT,
    PRIMARY KEY (run_id, eval_on, split, slice_id, class)
);
COMMENT ON TABLE slice_metrics IS 'Pixel counts per run, slice and class: what every score is computed from.';
COMMENT ON COLUMN slice_metrics.run_id IS 'Record of the run.';
COMMENT ON COLUMN slice_metrics.eval_on IS 'Dataset the slice belongs to.';
COMMENT ON COLUMN slice_metrics.split IS 'Split the slice belongs to.';
COMMENT ON COLUMN slice_metrics.slice_id IS 'Name of the slice within its dataset.';
COMMENT ON COLUMN slice_metrics.class IS 'foreground (all classes but the background), or one of the named classes beside it.';
COMMENT ON COLUMN slice_metrics.tp IS 'Pixels predicted and labelled as the class.';
COMMENT ON COLUMN slice_metrics.fp IS 'Pixels predicted as the class and labelled otherwise.';
COMMENT ON COLUMN slice_metrics.fn IS 'Pixels labelled as the class and predicted otherwise.';
COMMENT ON COLUMN slice_metrics.tn IS 'All other pixels.';
COMMENT ON COLUMN slice_metrics.slices_from_training IS 'Places in its stack to the nearest slice that the run has learned from: 0 where it has seen these pixels; NULL where the stack has none, and in records of older versions.';

CREATE TABLE paper_results (
    paper_table INTEGER NOT NULL,
    backbone    VARCHAR NOT NULL,
    regime      VARCHAR NOT NULL,
    train_on    VARCHAR NOT NULL,
    eval_on     VARCHAR NOT NULL,
    sampling    VARCHAR NOT NULL,
    iou_fg_mean DOUBLE NOT NULL,
    iou_fg_std  DOUBLE,
    n_runs      INTEGER,
    PRIMARY KEY (paper_table, backbone, regime, train_on, eval_on, sampling)
);
COMMENT ON TABLE paper_results IS 'Tables 1 to 5 and 8 of arXiv 2602.08505, cell by cell.';
COMMENT ON COLUMN paper_results.paper_table IS 'Number of the table in the paper.';
COMMENT ON COLUMN paper_results.backbone IS 'Name of the backbone.';
COMMENT ON COLUMN paper_results.regime IS 'frozen or lora.';
COMMENT ON COLUMN paper_results.train_on IS 'Training data, joined by " + ".';
COMMENT ON COLUMN paper_results.eval_on IS 'Test data; "lucchi++ + vnc" is the figure the paper calls paired.';
COMMENT ON COLUMN paper_results.sampling IS 'natural or balanced.';
COMMENT ON COLUMN paper_results.iou_fg_mean IS 'Mean foreground IoU over the runs.';
COMMENT ON COLUMN paper_results.iou_fg_std IS 'Standard deviation over the runs.';
COMMENT ON COLUMN paper_results.n_runs IS 'Number of runs, where the paper states it.';

CREATE TABLE literature_results (
    kind     VARCHAR NOT NULL,
    method   VARCHAR NOT NULL,
    train_on VARCHAR NOT NULL,
    dataset  VARCHAR NOT NULL,
    labels   VARCHAR NOT NULL,
    iou_fg   DOUBLE NOT NULL,
    note     VARCHAR NOT NULL,
    citation VARCHAR NOT NULL,
    PRIMARY KEY (method, train_on, dataset, labels)
);
COMMENT ON TABLE literature_results IS 'Published scores of other methods, each read at its source; none of them is of our splits and sizes.';
COMMENT ON COLUMN literature_results.kind IS 'Kind of method, as the named query methods has it.';
COMMENT ON COLUMN literature_results.method IS 'Name of the method.';
COMMENT ON COLUMN literature_results.train_on IS 'Data whose masks it was trained on.';
COMMENT ON COLUMN literature_results.dataset IS 'Data that it was scored on, by the name of its layout here.';
COMMENT ON COLUMN literature_results.labels IS 'Which masks: refined ones, as Lucchi++ has them, or the original ones.';
COMMENT ON COLUMN literature_results.iou_fg IS 'Foreground IoU (Jaccard index).';
COMMENT ON COLUMN literature_results.note IS 'What to know before it is compared.';
COMMENT ON COLUMN literature_results.citation IS 'Where it was read.';

CREATE TABLE paper_parameters (
    backbone           VARCHAR PRIMARY KEY,
    timm_or_open_clip  VARCHAR NOT NULL,
    embed_dim          INTEGER NOT NULL,
    patch              INTEGER NOT NULL,
    head_only          DOUBLE NOT NULL,
    head_only_pct      DOUBLE NOT NULL,
    lora_plus_head     DOUBLE NOT NULL,
    lora_plus_head_pct DOUBLE NOT NULL
);
COMMENT ON TABLE paper_parameters IS 'Table 7 of arXiv 2602.08505: trainable parameters, in millions.';
COMMENT ON COLUMN paper_parameters.backbone IS 'Name of the backbone.';
COMMENT ON COLUMN paper_parameters.timm_or_open_clip IS 'Name of the model in timm or open_clip.';
COMMENT ON COLUMN paper_parameters.embed_dim IS 'Channels of a token.';
COMMENT ON COLUMN paper_parameters.patch IS 'Edge of a patch in pixels.';
COMMENT ON COLUMN paper_parameters.head_only IS 'Parameters of the head, millions.';
COMMENT ON COLUMN paper_parameters.head_only_pct IS 'The same in percent of backbone and head.';
COMMENT ON COLUMN paper_parameters.lora_plus_head IS 'Parameters of adapters and head, millions.';
COMMENT ON COLUMN paper_parameters.lora_plus_head_pct IS 'The same in percent of backbone and head.';

CREATE TABLE evaluations (
    evaluation_id VARCHAR PRIMARY KEY,
    run_id        VARCHAR NOT NULL,
    eval_on       VARCHAR[] NOT NULL,
    data_keys     VARCHAR[] NOT NULL,
    device        VARCHAR,
    seconds       DOUBLE,
    audits_failed BOOLEAN[]
);
COMMENT ON TABLE evaluations IS 'One row per evaluation of a trained run on data that it may not have been trained on.';
COMMENT ON COLUMN evaluations.evaluation_id IS 'Record of the evaluation.';
COMMENT ON COLUMN evaluations.run_id IS 'Record of the run that was evaluated.';
COMMENT ON COLUMN evaluations.eval_on IS 'Datasets that were predicted.';
COMMENT ON COLUMN evaluations.data_keys IS 'Hash of slices, splits, masks and preprocessing of each of them, in the same order.';
COMMENT ON COLUMN evaluations.device IS 'Device of the evaluation.';
COMMENT ON COLUMN evaluations.seconds IS 'Wall-clock seconds.';
COMMENT ON COLUMN evaluations.audits_failed IS 'Whether the audit of each of them had failed, in the same order; NULL in records of older versions.';

CREATE TABLE evaluation_metrics (
    evaluation_id        VARCHAR NOT NULL,
    eval_on              VARCHAR NOT NULL,
    split                VARCHAR NOT NULL,
    slice_id             VARCHAR NOT NULL,
    class                VARCHAR NOT NULL,
    tp                   BIGINT NOT NULL,
    fp                   BIGINT NOT NULL,
    fn                   BIGINT NOT NULL,
    tn                   BIGINT NOT NULL,
    slices_from_training BIGINT,
    PRIMARY KEY (evaluation_id, eval_on, split, slice_id, class)
);
COMMENT ON TABLE evaluation_metrics IS 'Pixel counts per evaluation, slice and class; as slice_metrics, which holds those of the training itself.';
COMMENT ON COLUMN evaluation_metrics.evaluation_id IS 'Record of the evaluation.';
COMMENT ON COLUMN evaluation_metrics.eval_on IS 'Dataset the slice belongs to.';
COMMENT ON COLUMN evaluation_metrics.split IS 'Split the slice belongs to.';
COMMENT ON COLUMN evaluation_metrics.slice_id IS 'Name of the slice within its dataset.';
COMMENT ON COLUMN evaluation_metrics.class IS 'foreground (all classes but the background), or one of the named classes beside it.';
COMMENT ON COLUMN evaluation_metrics.tp IS 'Pixels predicted and labelled as the class.';
COMMENT ON COLUMN evaluation_metrics.fp IS 'Pixels predicted as the class and labelled otherwise.';
COMMENT ON COLUMN evaluation_metrics.fn IS 'Pixels labelled as the class and predicted otherwise.';
COMMENT ON COLUMN evaluation_metrics.tn IS 'All other pixels.';
COMMENT ON COLUMN evaluation_metrics.slices_from_training IS 'Places in its stack to the nearest slice that the run has learned from: 0 where it has seen these pixels; NULL where the stack has none, and in records of older versions.';

CREATE TABLE predictions (
    prediction_id   VARCHAR PRIMARY KEY,
    run_id          VARCHAR NOT NULL,
    out             VARCHAR,
    n_inputs        BIGINT,
    n_slices        BIGINT NOT NULL,
    n_outside       BIGINT,
    n_objects       BIGINT,
    seconds         DOUBLE
);
COMMENT ON TABLE predictions IS 'One row per emcache predict.';
COMMENT ON COLUMN predictions.prediction_id IS 'Record of the prediction.';
COMMENT ON COLUMN predictions.run_id IS 'Record of the run that segmented.';
COMMENT ON COLUMN predictions.out IS 'Folder of the results.';
COMMENT ON COLUMN predictions.n_inputs IS 'Files and volumes.';
COMMENT ON COLUMN predictions.n_slices IS 'Slices in them.';
COMMENT ON COLUMN predictions.n_outside IS 'Slices that are unlike those of the training; NULL in records of older versions.';
COMMENT ON COLUMN predictions.n_objects IS 'Objects in volumes that were written as OME-Zarr; NULL where none was.';
COMMENT ON COLUMN predictions.seconds IS 'Wall-clock seconds.';

CREATE TABLE objects (
    prediction_id   VARCHAR NOT NULL,
    input           VARCHAR NOT NULL,
    object_id       BIGINT NOT NULL,
    class           VARCHAR NOT NULL,
    voxels          BIGINT NOT NULL,
    volume_um3      DOUBLE,
    n_slices        BIGINT NOT NULL,
    z               DOUBLE NOT NULL,
    z_nm            DOUBLE,
    z_first         BIGINT NOT NULL,
    z_last          BIGINT NOT NULL,
    y               DOUBLE NOT NULL,
    y_nm            DOUBLE,
    y_first         BIGINT NOT NULL,
    y_last          BIGINT NOT NULL,
    x               DOUBLE NOT NULL,
    x_nm            DOUBLE,
    x_first         BIGINT NOT NULL,
    x_last          BIGINT NOT NULL,
    PRIMARY KEY (prediction_id, input, object_id)
);
COMMENT ON TABLE objects IS 'One row per object of a volume that emcache predict wrote as OME-Zarr: a connected part of one class in three dimensions.';
COMMENT ON COLUMN objects.prediction_id IS 'Record of the prediction.';
COMMENT ON COLUMN objects.input IS 'The volume, as it was named.';
COMMENT ON COLUMN objects.object_id IS 'Value of the object in labels/objects; 1, 2, ... in the order of first voxels.';
COMMENT ON COLUMN objects.class IS 'Its class.';
COMMENT ON COLUMN objects.voxels IS 'Its size in voxels.';
COMMENT ON COLUMN objects.volume_um3 IS 'Its size in cubic micrometres; NULL where the voxel size is not known.';
COMMENT ON COLUMN objects.n_slices IS 'Slices that it is in.';
COMMENT ON COLUMN objects.z IS 'Centre of its voxels: section, from 0.';
COMMENT ON COLUMN objects.z_nm IS 'The same in nanometres; NULL where the voxel size is not known.';
COMMENT ON COLUMN objects.z_first IS 'First section.';
COMMENT ON COLUMN objects.z_last IS 'Last section.';
COMMENT ON COLUMN objects.y IS 'Centre of its voxels: row, from 0.';
COMMENT ON COLUMN objects.y_nm IS 'The same in nanometres; NULL where the voxel size is not known.';
COMMENT ON COLUMN objects.y_first IS 'First row.';
COMMENT ON COLUMN objects.y_last IS 'Last row.';
COMMENT ON COLUMN objects.x IS 'Centre of its voxels: column, from 0.';
COMMENT ON COLUMN objects.x_nm IS 'The same in nanometres; NULL where the voxel size is not known.';
COMMENT ON COLUMN objects.x_first IS 'First column.';
COMMENT ON COLUMN objects.x_last IS 'Last column.';

CREATE TABLE shape_measurements (
    measurement_id  VARCHAR PRIMARY KEY,
    run_id          VARCHAR NOT NULL,
    tolerance       DOUBLE NOT NULL,
    smallest_object BIGINT NOT NULL,
    seconds         DOUBLE
);
COMMENT ON TABLE shape_measurements IS 'One row per measurement of the boundaries and objects that a run predicted (emcache metrics).';
COMMENT ON COLUMN shape_measurements.measurement_id IS 'Record of the measurement.';
COMMENT ON COLUMN shape_measurements.run_id IS 'Record of the run.';
COMMENT ON COLUMN shape_measurements.tolerance IS 'Pixels within which two boundaries agree.';
COMMENT ON COLUMN shape_measurements.smallest_object IS 'Pixels of the smallest object that counts.';
COMMENT ON COLUMN shape_measurements.seconds IS 'Wall-clock seconds.';

CREATE TABLE shape_metrics (
    measurement_id     VARCHAR NOT NULL,
    eval_on            VARCHAR NOT NULL,
    split              VARCHAR NOT NULL,
    dimensions         BIGINT NOT NULL,
    slice_id           VARCHAR NOT NULL,
    n_slices           BIGINT NOT NULL,
    dice               DOUBLE,
    boundary_f         DOUBLE,
    hausdorff_95       DOUBLE,
    n_true             BIGINT NOT NULL,
    n_predicted        BIGINT NOT NULL,
    matched_50         BIGINT NOT NULL,
    iou_sum_50         DOUBLE NOT NULL,
    matched_75         BIGINT NOT NULL,
    iou_sum_75         DOUBLE NOT NULL,
    adapted_rand_error DOUBLE,
    voi_split          DOUBLE,
    voi_merge          DOUBLE,
    PRIMARY KEY (measurement_id, eval_on, split, dimensions, slice_id)
);
COMMENT ON TABLE shape_metrics IS 'Boundary and object scores of the foreground, per slice and per volume of neighbouring slices; NULL where there is no object to score.';
COMMENT ON COLUMN shape_metrics.measurement_id IS 'Record of the measurement.';
COMMENT ON COLUMN shape_metrics.eval_on IS 'Dataset the slice belongs to.';
COMMENT ON COLUMN shape_metrics.split IS 'Split the slice belongs to.';
COMMENT ON COLUMN shape_metrics.dimensions IS '2 for a slice, 3 for a volume of slices that follow one another.';
COMMENT ON COLUMN shape_metrics.slice_id IS 'Name of the slice, or of the first one of the volume.';
COMMENT ON COLUMN shape_metrics.n_slices IS 'Number of slices.';
COMMENT ON COLUMN shape_metrics.dice IS 'Dice of the foreground; NULL where the mask has none.';
COMMENT ON COLUMN shape_metrics.boundary_f IS 'Boundary F-score within the tolerance; NULL where the mask has no foreground, and of volumes.';
COMMENT ON COLUMN shape_metrics.hausdorff_95 IS '95 % Hausdorff distance between the boundaries in pixels; NULL where there is no mask or no prediction, and of volumes.';
COMMENT ON COLUMN shape_metrics.n_true IS 'Objects of the mask: connected components.';
COMMENT ON COLUMN shape_metrics.n_predicted IS 'Objects that were predicted.';
COMMENT ON COLUMN shape_metrics.matched_50 IS 'Pairs of a true and a predicted object whose IoU is above 0.5.';
COMMENT ON COLUMN shape_metrics.iou_sum_50 IS 'Sum of their IoU.';
COMMENT ON COLUMN shape_metrics.matched_75 IS 'Pairs of a true and a predicted object whose IoU is above 0.75.';
COMMENT ON COLUMN shape_metrics.iou_sum_75 IS 'Sum of their IoU.';
COMMENT ON COLUMN shape_metrics.adapted_rand_error IS 'Adapted Rand error over the pixels of true objects; NULL where there are none.';
COMMENT ON COLUMN shape_metrics.voi_split IS 'Variation of information, bits: how far true objects are split.';
COMMENT ON COLUMN shape_metrics.voi_merge IS 'Variation of information, bits: how far true objects are merged.';

CREATE TABLE audits (
    audit_id      VARCHAR PRIMARY KEY,
    dataset       VARCHAR NOT NULL,
    verdict       VARCHAR NOT NULL,
    own_mask_wins DOUBLE,
    cause         VARCHAR,
    orientation   VARCHAR,
    channel       VARCHAR,
    examined      BIGINT,
    audit_key     VARCHAR,
    displaced     BIGINT,
    undecided     BIGINT,
    doubtful      BIGINT,
    evidence      DOUBLE
);
COMMENT ON TABLE audits IS 'One row per audit of a dataset.';
COMMENT ON COLUMN audits.audit_id IS 'Record of the audit.';
COMMENT ON COLUMN audits.dataset IS 'Name of the dataset.';
COMMENT ON COLUMN audits.verdict IS 'pass, warn or fail: the gravest of its checks.';
COMMENT ON COLUMN audits.own_mask_wins IS 'Share of the examined slices whose own mask fits best in both halves of the picture.';
COMMENT ON COLUMN audits.cause IS 'Why another pairing fits better: string order, reversed, ...; NULL where none does.';
COMMENT ON COLUMN audits.orientation IS 'How masks had to be turned to fit.';
COMMENT ON COLUMN audits.channel IS 'What of the images spoke most clearly, as "strong gradients on the outline".';
COMMENT ON COLUMN audits.examined IS 'Slices that were compared with masks.';
COMMENT ON COLUMN audits.audit_key IS 'Hash of slices, masks, splits and threshold that were audited.';
COMMENT ON COLUMN audits.displaced IS 'Slices that certainly have the mask of another slice.';
COMMENT ON COLUMN audits.undecided IS 'Slices that the halves do not agree on.';
COMMENT ON COLUMN audits.doubtful IS 'Slices whose own mask fits no better than those of other slices.';
COMMENT ON COLUMN audits.evidence IS 'Standard errors by which the best known wrong order fits better than the declared one; negative where the declared one fits better.';

CREATE TABLE audit_checks (
    audit_id VARCHAR NOT NULL,
    name     VARCHAR NOT NULL,
    verdict  VARCHAR NOT NULL,
    message  VARCHAR NOT NULL,
    PRIMARY KEY (audit_id, name)
);
COMMENT ON TABLE audit_checks IS 'One row per check of an audit.';
COMMENT ON COLUMN audit_checks.audit_id IS 'Record of the audit.';
COMMENT ON COLUMN audit_checks.name IS 'pairing, duplicates, leakage, ...';
COMMENT ON COLUMN audit_checks.verdict IS 'pass, warn or fail.';
COMMENT ON COLUMN audit_checks.message IS 'What was found, and what to do.';

CREATE TABLE audit_scores (
    audit_id VARCHAR NOT NULL,
    image    VARCHAR NOT NULL,
    mask     VARCHAR NOT NULL,
    score    DOUBLE NOT NULL,
    declared BOOLEAN NOT NULL,
    assigned BOOLEAN NOT NULL,
    PRIMARY KEY (audit_id, image, mask)
);
COMMENT ON TABLE audit_scores IS 'How well masks fit images, for a run of slices that were compared with each other.';
COMMENT ON COLUMN audit_scores.audit_id IS 'Record of the audit.';
COMMENT ON COLUMN audit_scores.image IS 'Slice whose image it is.';
COMMENT ON COLUMN audit_scores.mask IS 'Slice whose declared mask it is.';
COMMENT ON COLUMN audit_scores.score IS 'Centred by rows and columns, mean of both halves; high where image and mask fit.';
COMMENT ON COLUMN audit_scores.declared IS 'Whether this is the declared pair.';
COMMENT ON COLUMN audit_scores.assigned IS 'Whether both halves pair them.';

CREATE TABLE gap_measurements (
    gap_id     VARCHAR PRIMARY KEY,
    selections VARCHAR[] NOT NULL,
    align      VARCHAR
);
COMMENT ON TABLE gap_measurements IS 'One row per gap command.';
COMMENT ON COLUMN gap_measurements.gap_id IS 'Record of the measurement.';
COMMENT ON COLUMN gap_measurements.selections IS 'What was compared, pair by pair.';
COMMENT ON COLUMN gap_measurements.align IS 'How tokens were aligned first, as standardise, or coral to vnc; NULL where they are as they were made.';

CREATE TABLE gaps (
    gap_id           VARCHAR NOT NULL,
    domain_a         VARCHAR NOT NULL,
    domain_b         VARCHAR NOT NULL,
    backbone         VARCHAR NOT NULL,
    weights          VARCHAR NOT NULL,
    longest_edge     BIGINT,
    pixel_size_nm    DOUBLE,
    regime           VARCHAR NOT NULL,
    run_id           VARCHAR,
    recipe_sha256    VARCHAR NOT NULL,
    level            VARCHAR NOT NULL,
    class            VARCHAR,
    n_a              BIGINT NOT NULL,
    n_b              BIGINT NOT NULL,
    dim              BIGINT NOT NULL,
    effective_rank   DOUBLE,
    frechet          DOUBLE NOT NULL,
    frechet_se       DOUBLE,
    frechet_low      DOUBLE,
    frechet_high     DOUBLE,
    n_yardstick      BIGINT,
    frechet_within_a DOUBLE,
    frechet_within_b DOUBLE,
    frechet_at_n     DOUBLE,
    frechet_infinity DOUBLE,
    kernel           DOUBLE,
    kernel_name      VARCHAR,
    probe_accuracy   DOUBLE,
    probe_auroc      DOUBLE,
    probe_p_value    DOUBLE
);
COMMENT ON TABLE gaps IS 'One row per pair of domains, level and class of a measurement.';
COMMENT ON COLUMN gaps.gap_id IS 'Record of the measurement.';
COMMENT ON COLUMN gaps.domain_a IS 'First dataset or split.';
COMMENT ON COLUMN gaps.domain_b IS 'Second dataset or split.';
COMMENT ON COLUMN gaps.backbone IS 'Name of the backbone.';
COMMENT ON COLUMN gaps.weights IS 'Where its weights come from; random:SEED is untrained.';
COMMENT ON COLUMN gaps.longest_edge IS 'Longest edge in pixels; NULL where slices have one physical scale.';
COMMENT ON COLUMN gaps.pixel_size_nm IS 'Pitch in nanometres that slices were brought to; NULL where they have one longest edge.';
COMMENT ON COLUMN gaps.regime IS 'frozen: the bare backbone; lora: with the adapter of run_id; full: as run_id trained it.';
COMMENT ON COLUMN gaps.run_id IS 'Run whose backbone made the tokens; NULL where none was named.';
COMMENT ON COLUMN gaps.recipe_sha256 IS 'Hash of everything that decides a token.';
COMMENT ON COLUMN gaps.level IS 'slice: mean of the patch tokens; cls: class token; token: single patch tokens.';
COMMENT ON COLUMN gaps.class IS 'Of the tokens, by their masks: foreground or background; NULL for all.';
COMMENT ON COLUMN gaps.n_a IS 'Vectors of domain_a.';
COMMENT ON COLUMN gaps.n_b IS 'Vectors of domain_b.';
COMMENT ON COLUMN gaps.dim IS 'Numbers in a vector.';
COMMENT ON COLUMN gaps.effective_rank IS 'Exponential of the entropy of the covariance eigenvalues, of the domain where it is lower.';
COMMENT ON COLUMN gaps.frechet IS 'Squared Frechet distance between Gaussians fitted to both.';
COMMENT ON COLUMN gaps.frechet_se IS 'Jackknife standard error, leaving out blocks of neighbouring slices; NULL with too few blocks.';
COMMENT ON COLUMN gaps.frechet_low IS 'Lower end of the 95 % interval.';
COMMENT ON COLUMN gaps.frechet_high IS 'Upper end of the 95 % interval.';
COMMENT ON COLUMN gaps.n_yardstick IS 'Vectors on each side of the three distances that follow.';
COMMENT ON COLUMN gaps.frechet_within_a IS 'Between contiguous halves of domain_a, at n_yardstick.';
COMMENT ON COLUMN gaps.frechet_within_b IS 'Between contiguous halves of domain_b, at n_yardstick.';
COMMENT ON COLUMN gaps.frechet_at_n IS 'Between domain_a and domain_b, at n_yardstick.';
COMMENT ON COLUMN gaps.frechet_infinity IS 'Extrapolated to infinitely many vectors; NULL where it cannot be estimated.';
COMMENT ON COLUMN gaps.kernel IS 'Squared maximum mean discrepancy, pairs of neighbouring slices left out.';
COMMENT ON COLUMN gaps.kernel_name IS 'Its kernel.';
COMMENT ON COLUMN gaps.probe_accuracy IS 'Balanced accuracy of a linear probe for the domain, cross-validated by blocks; NULL with too few blocks.';
COMMENT ON COLUMN gaps.probe_auroc IS 'Area under the ROC curve of the probe.';
COMMENT ON COLUMN gaps.probe_p_value IS 'Share of permutations of the blocks with an AUROC at least as high.';

CREATE TABLE familiarity_checks (
    check_id         VARCHAR PRIMARY KEY,
    run_id           VARCHAR NOT NULL,
    selections       VARCHAR[] NOT NULL,
    smallest_p_value DOUBLE
);
COMMENT ON TABLE familiarity_checks IS 'One row per `gap --of` command: new slices against what a run was trained on.';
COMMENT ON COLUMN familiarity_checks.check_id IS 'Record of the check.';
COMMENT ON COLUMN familiarity_checks.run_id IS 'Run whose training slices were compared with.';
COMMENT ON COLUMN familiarity_checks.selections IS 'What was compared.';
COMMENT ON COLUMN familiarity_checks.smallest_p_value IS 'The smallest p-value that there can be: one over the training slices and one.';

CREATE TABLE familiarity (
    check_id         VARCHAR NOT NULL,
    run_id           VARCHAR NOT NULL,
    domain           VARCHAR NOT NULL,
    slice_id         VARCHAR NOT NULL,
    learned_from     BOOLEAN NOT NULL,
    nearest          VARCHAR NOT NULL,
    distance         DOUBLE NOT NULL,
    distance_of_mean DOUBLE NOT NULL,
    p_value          DOUBLE NOT NULL,
    p_value_of_mean  DOUBLE NOT NULL,
    outside          BOOLEAN NOT NULL,
    PRIMARY KEY (check_id, domain, slice_id)
);
COMMENT ON TABLE familiarity IS 'How far each slice of a check lies from the training slices of a run.';
COMMENT ON COLUMN familiarity.check_id IS 'Record of the check.';
COMMENT ON COLUMN familiarity.run_id IS 'Run whose training slices were compared with.';
COMMENT ON COLUMN familiarity.domain IS 'Dataset or split of the slice.';
COMMENT ON COLUMN familiarity.slice_id IS 'Name of the slice.';
COMMENT ON COLUMN familiarity.learned_from IS 'Whether the run has learned from its pixels.';
COMMENT ON COLUMN familiarity.nearest IS 'Dataset of the training that the slice is most like.';
COMMENT ON COLUMN familiarity.distance IS 'Mean squared Mahalanobis distance of its tokens from those of nearest, over the channels.';
COMMENT ON COLUMN familiarity.distance_of_mean IS 'The same of its mean token.';
COMMENT ON COLUMN familiarity.p_value IS 'Share of the training slices of nearest, this slice among them, whose tokens lie at least as far from the others.';
COMMENT ON COLUMN familiarity.p_value_of_mean IS 'The same of mean tokens.';
COMMENT ON COLUMN familiarity.outside IS 'Whether its tokens are unlike those of every dataset of the training.';

CREATE TABLE gap_points (
    gap_id     VARCHAR NOT NULL,
    domain     VARCHAR NOT NULL,
    slice_id   VARCHAR NOT NULL,
    pc1        DOUBLE NOT NULL,
    pc2        DOUBLE NOT NULL,
    explained1 DOUBLE,
    explained2 DOUBLE,
    thumbnail  VARCHAR,
    PRIMARY KEY (gap_id, domain, slice_id)
);
COMMENT ON TABLE gap_points IS 'Slice means of a measurement in the plane of their first two principal components, fitted to all its domains jointly.';
COMMENT ON COLUMN gap_points.gap_id IS 'Record of the measurement.';
COMMENT ON COLUMN gap_points.domain IS 'Dataset or split.';
COMMENT ON COLUMN gap_points.slice_id IS 'Name of the slice.';
COMMENT ON COLUMN gap_points.pc1 IS 'First principal component.';
COMMENT ON COLUMN gap_points.pc2 IS 'Second principal component.';
COMMENT ON COLUMN gap_points.explained1 IS 'Share of the variance along the first.';
COMMENT ON COLUMN gap_points.explained2 IS 'Share of the variance along the second.';
COMMENT ON COLUMN gap_points.thumbnail IS 'The slice as a small JPEG, a data address.';

CREATE TABLE embeddings (
    record_id VARCHAR NOT NULL,
    dataset   VARCHAR NOT NULL,
    slice_id  VARCHAR NOT NULL,
    level     VARCHAR NOT NULL,
    class     VARCHAR,
    token_row INTEGER,
    token_col INTEGER,
    vector    FLOAT[] NOT NULL
);
COMMENT ON TABLE embeddings IS 'Vectors: of every slice by extractions, of sampled patch tokens by gap measurements. The views embeddings_384 and their kin hold those of one width as fixed-size arrays.';
COMMENT ON COLUMN embeddings.record_id IS 'Extraction or measurement.';
COMMENT ON COLUMN embeddings.dataset IS 'Name of the dataset.';
COMMENT ON COLUMN embeddings.slice_id IS 'Name of the slice.';
COMMENT ON COLUMN embeddings.level IS 'slice: mean of the patch tokens; cls: class token; token: one patch token.';
COMMENT ON COLUMN embeddings.class IS 'Of a token, by its mask: foreground or background; NULL for slices and for tokens of any class.';
COMMENT ON COLUMN embeddings.token_row IS 'Row of the token in its grid; NULL for slices.';
COMMENT ON COLUMN embeddings.token_col IS 'Column of the token in its grid; NULL for slices.';
COMMENT ON COLUMN embeddings.vector IS 'As the backbone made it, in float32.';

CREATE TABLE benchmark_runs (
    bench_id VARCHAR PRIMARY KEY,
    machine  VARCHAR NOT NULL,
    quick    BOOLEAN NOT NULL
);
COMMENT ON TABLE benchmark_runs IS 'One row per bench command.';
COMMENT ON COLUMN benchmark_runs.bench_id IS 'Record of the benchmarks.';
COMMENT ON COLUMN benchmark_runs.machine IS 'Processor, cores and GPU.';
COMMENT ON COLUMN benchmark_runs.quick IS 'Whether --quick was given: smaller sizes, fewer rounds.';

CREATE TABLE benchmarks (
    bench_id VARCHAR NOT NULL,
    name     VARCHAR NOT NULL,
    question VARCHAR NOT NULL,
    ratio    DOUBLE NOT NULL,
    low      DOUBLE NOT NULL,
    high     DOUBLE NOT NULL,
    unit     VARCHAR NOT NULL,
    target   VARCHAR,
    verdict  VARCHAR NOT NULL,
    device   VARCHAR NOT NULL,
    note     VARCHAR,
    times    STRUCT(what VARCHAR, "seconds" DOUBLE[])[],
    PRIMARY KEY (bench_id, name)
);
COMMENT ON TABLE benchmarks IS 'One row per ratio of a bench command.';
COMMENT ON COLUMN benchmarks.bench_id IS 'Record of the benchmarks.';
COMMENT ON COLUMN benchmarks.name IS 'Short name of the benchmark.';
COMMENT ON COLUMN benchmarks.question IS 'What is divided by what.';
COMMENT ON COLUMN benchmarks.ratio IS 'Median over the rounds.';
COMMENT ON COLUMN benchmarks.low IS 'Lowest of a round.';
COMMENT ON COLUMN benchmarks.high IS 'Highest of a round.';
COMMENT ON COLUMN benchmarks.unit IS 'ratio, s or records/s.';
COMMENT ON COLUMN benchmarks.target IS 'What it must reach; NULL for what only informs.';
COMMENT ON COLUMN benchmarks.verdict IS 'pass, fail or n/a.';
COMMENT ON COLUMN benchmarks.device IS 'cpu or cuda.';
COMMENT ON COLUMN benchmarks.note IS 'Why the verdict is not what the ratio alone would say.';
COMMENT ON COLUMN benchmarks.times IS 'Raw seconds of each round, by what was timed.';

CREATE TABLE benchmark_growth (
    bench_id VARCHAR NOT NULL,
    stage    VARCHAR NOT NULL,
    n_slices BIGINT NOT NULL,
    seconds  DOUBLE NOT NULL,
    PRIMARY KEY (bench_id, stage, n_slices)
);
COMMENT ON TABLE benchmark_growth IS 'Time of each stage against the number of slices.';
COMMENT ON COLUMN benchmark_growth.bench_id IS 'Record of the benchmarks.';
COMMENT ON COLUMN benchmark_growth.stage IS 'What was timed.';
COMMENT ON COLUMN benchmark_growth.n_slices IS 'Slices worked on.';
COMMENT ON COLUMN benchmark_growth.seconds IS 'Wall-clock time.';

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

CREATE TABLE dataset_renames (
    rename_id VARCHAR PRIMARY KEY,
    old_name  VARCHAR NOT NULL,
    new_name  VARCHAR NOT NULL
);
COMMENT ON TABLE dataset_renames IS 'Every time that a dataset was given another name; rows of older records have the new one.';
COMMENT ON COLUMN dataset_renames.rename_id IS 'Record of the command.';
COMMENT ON COLUMN dataset_renames.old_name IS 'Name until then.';
COMMENT ON COLUMN dataset_renames.new_name IS 'Name from then on.';

CREATE TABLE made_by (
    sha256 VARCHAR NOT NULL
);
COMMENT ON TABLE made_by IS 'Which schema this database has; one of another schema is made again from the records.';
COMMENT ON COLUMN made_by.sha256 IS 'SHA-256 over the files of the package that made it.';
