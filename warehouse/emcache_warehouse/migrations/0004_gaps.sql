-- Domain gaps: distances between sets of slices in a backbone's feature space, and the vectors themselves.

CREATE TABLE gap_measurements (
    gap_id     VARCHAR PRIMARY KEY,
    selections VARCHAR[] NOT NULL
);
COMMENT ON TABLE gap_measurements IS 'One row per gap command.';
COMMENT ON COLUMN gap_measurements.gap_id IS 'Record of the measurement.';
COMMENT ON COLUMN gap_measurements.selections IS 'What was compared, pair by pair.';

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
COMMENT ON COLUMN gaps.regime IS 'frozen: the bare backbone; lora: with the adapter of run_id.';
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

COMMENT ON COLUMN slice_metrics.class IS 'foreground (all classes but the background), or one of the named classes beside it.';
COMMENT ON COLUMN evaluation_metrics.class IS 'foreground (all classes but the background), or one of the named classes beside it.';
