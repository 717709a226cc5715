INSERT INTO audits
SELECT
    record_id,
    config->>'dataset',
    config->>'verdict',
    (config->'pairing'->>'own_mask_wins')::DOUBLE,
    (config->'pairing'->>'p_value')::DOUBLE,
    config->'pairing'->>'cause',
    config->'pairing'->>'orientation',
    config->'pairing'->>'channel',
    (config->'pairing'->>'strength')::DOUBLE,
    (config->'pairing'->>'examined')::BIGINT,
    config->>'audit_key'
FROM records
WHERE record_id IN (SELECT unnest($ids));

INSERT INTO audit_checks
SELECT
    record_id,
    finding->>'name',
    finding->>'verdict',
    finding->>'message'
FROM (
    SELECT record_id, unnest((config->'checks')::JSON[]) AS finding
    FROM records
    WHERE record_id IN (SELECT unnest($ids))
);
