INSERT INTO benchmark_runs
SELECT record_id, config->>'machine', (config->>'quick')::BOOLEAN
FROM records
WHERE record_id IN (SELECT unnest($ids));
