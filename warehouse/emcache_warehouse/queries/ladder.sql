-- The ladder of adaptation: test scores by how much of the backbone was adapted, with what that took; runs that learned nothing are left out.
-- columns: eval_on, setting, train_on, rung, regime, aligned_by, backbone, weights, longest_edge, pixel_size_nm, protocol, sampling, precision, device, audit_accepted, data, n_slices, seed, run_id, trainable_parameters, train_seconds, memory_gb, cache_gb, iou_fg
WITH sizes AS (
    SELECT feature_set, arg_max(total_bytes, record_id) AS total_bytes
    FROM feature_sets
    GROUP BY feature_set
),
caches AS (
    SELECT run_id, sum(total_bytes) / 1e9 AS cache_gb
    FROM (SELECT DISTINCT run_id, unnest(feature_sets) AS feature_set FROM runs)
    JOIN sizes USING (feature_set)
    GROUP BY run_id
)
SELECT
    eval_on,
    setting,
    scores.train_on,
    CASE scores.regime
        WHEN 'frozen' THEN 'frozen'
        WHEN 'full' THEN 'all weights'
        ELSE 'LoRA' || coalesce(
            ' on the last ' || nullif(regexp_extract(scores.protocol, '\blora_last_blocks=(\d+)', 1), ''),
            ''
        )
    END || CASE WHEN aligned_by = 'none' THEN '' ELSE ', ' || aligned_by END AS rung,
    scores.regime,
    aligned_by,
    scores.backbone,
    -- One name for the same bytes, whether tokens came from the cache or the backbone ran.
    coalesce(max(runs.weights) OVER (PARTITION BY runs.weights_sha256), runs.weights) AS weights,
    scores.longest_edge,
    scores.pixel_size_nm,
    -- The protocol without what makes the rung, as it is elsewhere without what aligns.
    replace(
        replace(
            regexp_replace(scores.protocol, '(, )?\blora_last_blocks=\d+', '', 'g'),
            '[, ',
            '['
        ),
        '[]',
        ''
    ) AS protocol,
    scores.sampling,
    scores."precision",
    runs.device,
    scores.audit_accepted,
    data,
    n_slices,
    scores.seed,
    run_id,
    trainable_parameters,
    train_seconds,
    peak_memory_bytes / 1e9 AS memory_gb,
    coalesce(cache_gb, 0) AS cache_gb,
    iou_fg
FROM aligned_scores AS scores
JOIN runs USING (run_id)
LEFT JOIN caches USING (run_id)
-- Heads that were fitted to a few labels are not rungs of it.
WHERE scores.regime IN ('frozen', 'lora', 'full')
ORDER BY eval_on, setting, scores.train_on, trainable_parameters, rung, scores.protocol, scores.weights, scores.longest_edge, scores.seed;
