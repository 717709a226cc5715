INSERT INTO evaluations
SELECT
    record_id,
    config->>'run_id',
    (config->>'eval_on')::VARCHAR[],
    (config->>'data_keys')::VARCHAR[],
    config->>'device',
    seconds
FROM records
WHERE record_id IN (SELECT unnest($ids));
