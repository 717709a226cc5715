INSERT INTO feature_sets
SELECT
    record_id,
    config->>'feature_set',
    config->>'fingerprint',
    config->>'recipe_sha256',
    config->>'dataset',
    config->>'split',
    config->>'backbone',
    config->>'weights',
    config->>'weights_sha256',
    (config->>'longest_edge')::BIGINT,
    (config->>'patch')::BIGINT,
    (config->>'dim')::BIGINT,
    config->>'layer',
    config->>'dtype',
    config->>'precision',
    config->>'device',
    (config->>'n_slices')::BIGINT,
    (config->>'n_computed')::BIGINT,
    (config->>'n_copied')::BIGINT,
    (config->>'token_bytes')::BIGINT,
    (config->>'total_bytes')::BIGINT,
    (config->>'n_files')::BIGINT,
    (config->>'compute_seconds')::DOUBLE,
    (config->>'pixel_size_nm')::DOUBLE
FROM records
WHERE record_id IN (SELECT unnest($ids));
