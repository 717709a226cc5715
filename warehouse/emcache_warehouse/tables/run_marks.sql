INSERT INTO run_marks
SELECT
    record_id,
    unnest((config->>'run_ids')::VARCHAR[]),
    (config->>'hidden')::BOOLEAN,
    config->>'why'
FROM records
WHERE record_id IN (SELECT unnest($ids));
