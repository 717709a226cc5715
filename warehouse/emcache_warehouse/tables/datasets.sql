-- The newest record of each dataset name, whatever the order of ingestion.
INSERT OR REPLACE INTO datasets
SELECT new.*
FROM (
    SELECT
        config->>'dataset' AS dataset,
        record_id,
        config->>'layout' AS layout,
        config->>'root' AS root,
        config->>'pairing' AS pairing,
        (config->>'n_slices')::BIGINT AS n_slices,
        (config->>'n_labelled')::BIGINT AS n_labelled,
        (config->>'grey_pixels')::BIGINT AS grey_pixels,
        (config->>'voxel_size_nm')::DOUBLE[] AS voxel_size_nm
    FROM records
    WHERE record_id IN (SELECT unnest($ids))
    QUALIFY row_number() OVER (PARTITION BY dataset ORDER BY record_id DESC) = 1
) AS new
LEFT JOIN datasets AS old USING (dataset)
WHERE old.record_id IS NULL OR old.record_id < new.record_id;

DELETE FROM slices WHERE record_id NOT IN (SELECT record_id FROM datasets);
