INSERT INTO familiarity_checks
SELECT record_id, config->>'run_id', (config->'selections')::VARCHAR[], (config->>'smallest_p_value')::DOUBLE
FROM records
WHERE record_id IN (SELECT unnest($ids));
