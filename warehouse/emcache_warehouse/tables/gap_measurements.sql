INSERT INTO gap_measurements
SELECT record_id, (config->'selections')::VARCHAR[]
FROM records
WHERE record_id IN (SELECT unnest($ids));
