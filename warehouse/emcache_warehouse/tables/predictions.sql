INSERT INTO predictions
SELECT
    record_id,
    config->>'run_id',
    config->>'out',
    json_array_length(config->'inputs'),
    (config->>'n_slices')::BIGINT,
    (config->>'n_outside')::BIGINT,
    (config->>'n_objects')::BIGINT,
    seconds
FROM records
WHERE record_id IN (SELECT unnest($ids));
