INSERT INTO evaluations
SELECT
    record_id,
    config->>'run_id',
    (config->>'eval_on')::VARCHAR[],
    (config->>'data_keys')::VARCHAR[],
    config->>'device',
    seconds,
    (config->>'audits_failed')::BOOLEAN[]
FROM records
WHERE record_id IN (SELECT unnest($ids));
