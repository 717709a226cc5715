INSERT INTO gap_measurements
SELECT record_id, (config->'selections')::VARCHAR[], config->>'align'
FROM records
WHERE record_id IN (SELECT unnest($ids));
