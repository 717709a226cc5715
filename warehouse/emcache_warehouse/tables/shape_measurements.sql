INSERT INTO shape_measurements
SELECT
    record_id,
    config->>'run_id',
    (config->>'tolerance')::DOUBLE,
    (config->>'smallest_object')::BIGINT,
    seconds
FROM records
WHERE record_id IN (SELECT unnest($ids));
