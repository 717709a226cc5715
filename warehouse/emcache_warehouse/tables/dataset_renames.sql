INSERT INTO dataset_renames
SELECT record_id, config->>'old_name', config->>'new_name'
FROM records
WHERE record_id IN (SELECT unnest($ids));
