-- The first schema: what every record says (`records`), one table per thing a record is about, and
-- the figures of the paper this project is measured against (arXiv 2602.08505).
--
-- Times are UTC. A score is never stored: the views compute it from the counts in `slice_metrics`.

CREATE TABLE records (
    record_id   VARCHAR PRIMARY KEY,
    kind        VARCHAR NOT NULL,
    status      VARCHAR NOT NULL,
    started_at  TIMESTAMP NOT NULL,
    finished_at TIMESTAMP NOT NULL,
    seconds     DOUBLE NOT NULL,
    versions    JSON NOT NULL,
    host        JSON NOT NULL,
    config      JSON NOT NULL,
    has_tables  BOOLEAN NOT NULL
);
COMMENT ON TABLE records IS 'Every record that has been ingested, as its record.json says.';
COMMENT ON COLUMN records.record_id IS 'Folder below runs/; sorts by time.';
COMMENT ON COLUMN records.kind IS 'dataset, extract, train-head, or a kind this version has no tables for.';
COMMENT ON COLUMN records.status IS 'finished.';
COMMENT ON COLUMN records.started_at IS 'Start of the command, UTC.';
COMMENT ON COLUMN records.finished_at IS 'End of the command, UTC.';
COMMENT ON COLUMN records.seconds IS 'Wall-clock time between the two.';
COMMENT ON COLUMN records.versions IS 'Versions of emcache, Python and the packages that shape a result.';
COMMENT ON COLUMN records.host IS 'Machine, system and number of cores.';
COMMENT ON COLUMN records.config IS 'The resolved configuration, whole; the other tables are cut from it.';
COMMENT ON COLUMN records.has_tables IS 'False where the kind was unknown when it was ingested, so that only this row exists.';

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
    longest_edge    BIGINT NOT NULL,
    patch           BIGINT,
    dim             BIGINT,
    layer           VARCHAR,
    dtype           VARCHAR,
    "precision"     VARCHAR,
    device          VARCHAR,
    n_slices        BIGINT,
    n_computed      BIGINT,
    n_copied        BIGINT,
    token_bytes     BIGINT,
    total_bytes     BIGINT,
    n_files         BIGINT,
    compute_seconds DOUBLE
);
COMMENT ON TABLE feature_sets IS 'One row per extraction; a feature set that was extracted again, after pruning say, has several.';
COMMENT ON COLUMN feature_sets.record_id IS 'Record of the extraction.';
COMMENT ON COLUMN feature_sets.feature_set IS 'Folder below cache/.';
COMMENT ON COLUMN feature_sets.fingerprint IS 'Hash of everything that could change the tokens.';
COMMENT ON COLUMN feature_sets.recipe_sha256 IS 'Hash of the same without the slices.';
COMMENT ON COLUMN feature_sets.dataset IS 'Dataset whose slices were embedded.';
COMMENT ON COLUMN feature_sets.split IS 'Split that was embedded; NULL for all labelled slices.';
COMMENT ON COLUMN feature_sets.backbone IS 'Name of the backbone.';
COMMENT ON COLUMN feature_sets.weights IS 'pretrained, random:SEED (untrained), or file:NAME@HASH.';
COMMENT ON COLUMN feature_sets.weights_sha256 IS 'Hash of the bytes of the weights.';
COMMENT ON COLUMN feature_sets.longest_edge IS 'Target of the longest edge in pixels, before flooring to the patch.';
COMMENT ON COLUMN feature_sets.patch IS 'Edge of a patch in pixels.';
COMMENT ON COLUMN feature_sets.dim IS 'Channels of a token.';
COMMENT ON COLUMN feature_sets.layer IS 'Layer the tokens come from.';
COMMENT ON COLUMN feature_sets.dtype IS 'Type of the stored tokens.';
COMMENT ON COLUMN feature_sets."precision" IS 'Type the backbone computed in.';
COMMENT ON COLUMN feature_sets.device IS 'Device the backbone ran on.';
COMMENT ON COLUMN feature_sets.n_slices IS 'Slices in the feature set.';
COMMENT ON COLUMN feature_sets.n_computed IS 'Slices that went through the backbone.';
COMMENT ON COLUMN feature_sets.n_copied IS 'Slices copied from an older feature set.';
COMMENT ON COLUMN feature_sets.token_bytes IS 'Bytes of the token arrays.';
COMMENT ON COLUMN feature_sets.total_bytes IS 'Bytes of the whole feature set on disk.';
COMMENT ON COLUMN feature_sets.n_files IS 'Files of the feature set.';
COMMENT ON COLUMN feature_sets.compute_seconds IS 'Wall-clock seconds of the backbone passes and the writing.';

CREATE TABLE runs (
    run_id          VARCHAR PRIMARY KEY,
    regime          VARCHAR NOT NULL,
    backbone        VARCHAR NOT NULL,
    weights         VARCHAR NOT NULL,
    weights_sha256  VARCHAR,
    longest_edge    BIGINT NOT NULL,
    protocol        VARCHAR NOT NULL,
    protocol_fields JSON,
    train_on        VARCHAR NOT NULL,
    sampling        VARCHAR NOT NULL,
    seed            BIGINT NOT NULL,
    head            VARCHAR,
    head_parameters BIGINT,
    audit_accepted  BOOLEAN,
    "precision"     VARCHAR,
    device          VARCHAR,
    resident        VARCHAR,
    feature_sets    VARCHAR[],
    label_sets      VARCHAR[],
    epochs_run      BIGINT,
    best_epoch      BIGINT,
    best_val_loss   DOUBLE,
    stopped_by      VARCHAR,
    n_train         BIGINT,
    n_val           BIGINT,
    train_seconds   DOUBLE
);
COMMENT ON TABLE runs IS 'One row per training run.';
COMMENT ON COLUMN runs.run_id IS 'Record of the run.';
COMMENT ON COLUMN runs.regime IS 'frozen or lora.';
COMMENT ON COLUMN runs.backbone IS 'Name of the backbone.';
COMMENT ON COLUMN runs.weights IS 'pretrained, random:SEED (untrained), or file:NAME@HASH.';
COMMENT ON COLUMN runs.weights_sha256 IS 'Hash of the bytes of the weights.';
COMMENT ON COLUMN runs.longest_edge IS 'Target of the longest edge in pixels.';
COMMENT ON COLUMN runs.protocol IS 'paper, or paper[...] with the fields that differ from it.';
COMMENT ON COLUMN runs.protocol_fields IS 'Every field of the protocol.';
COMMENT ON COLUMN runs.train_on IS 'Names of the datasets, joined by " + ".';
COMMENT ON COLUMN runs.sampling IS 'natural or balanced.';
COMMENT ON COLUMN runs.seed IS 'Training seed.';
COMMENT ON COLUMN runs.head IS 'Kind of head.';
COMMENT ON COLUMN runs.head_parameters IS 'Trainable parameters of the head.';
COMMENT ON COLUMN runs.audit_accepted IS 'Whether the audit of the pairing of images and masks was accepted; NULL where none was made.';
COMMENT ON COLUMN runs."precision" IS 'Type the training computed in.';
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
    run_id   VARCHAR NOT NULL,
    eval_on  VARCHAR NOT NULL,
    split    VARCHAR NOT NULL,
    slice_id VARCHAR NOT NULL,
    class    VARCHAR NOT NULL,
    tp       BIGINT NOT NULL,
    fp       BIGINT NOT NULL,
    fn       BIGINT NOT NULL,
    tn       BIGINT NOT NULL,
    PRIMARY KEY (run_id, eval_on, split, slice_id, class)
);
COMMENT ON TABLE slice_metrics IS 'Pixel counts per run, slice and class: what every score is computed from.';
COMMENT ON COLUMN slice_metrics.run_id IS 'Record of the run.';
COMMENT ON COLUMN slice_metrics.eval_on IS 'Dataset the slice belongs to.';
COMMENT ON COLUMN slice_metrics.split IS 'Split the slice belongs to.';
COMMENT ON COLUMN slice_metrics.slice_id IS 'Name of the slice within its dataset.';
COMMENT ON COLUMN slice_metrics.class IS 'foreground, or another class beside it.';
COMMENT ON COLUMN slice_metrics.tp IS 'Pixels predicted and labelled as the class.';
COMMENT ON COLUMN slice_metrics.fp IS 'Pixels predicted as the class and labelled otherwise.';
COMMENT ON COLUMN slice_metrics.fn IS 'Pixels labelled as the class and predicted otherwise.';
COMMENT ON COLUMN slice_metrics.tn IS 'All other pixels.';

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
