INSERT INTO audits BY NAME
SELECT
    record_id AS audit_id,
    config->>'dataset' AS dataset,
    config->>'verdict' AS verdict,
    (config->'pairing'->>'own_mask_wins')::DOUBLE AS own_mask_wins,
    len(json_keys(config->'pairing'->'displaced')) AS displaced,
    json_array_length(config->'pairing'->'undecided') AS undecided,
    json_array_length(config->'pairing'->'doubtful') AS doubtful,
    (config->'pairing'->>'evidence')::DOUBLE AS evidence,
    config->'pairing'->>'cause' AS cause,
    config->'pairing'->>'orientation' AS orientation,
    config->'pairing'->>'channel' AS channel,
    (config->'pairing'->>'examined')::BIGINT AS examined,
    config->>'audit_key' AS audit_key
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
