-- Test scores with what their runs aligned by, apart from the rest of the protocol.
CREATE VIEW aligned_scores AS
WITH scores AS (
    SELECT
        metrics.*,
        runs.pixel_size_nm,
        list_filter(
            [
                regexp_extract(metrics.protocol, '[\[ ]align=([^,\]]+)', 1),
                regexp_extract(metrics.protocol, '[\[ ]normalise=([^,\]]+)', 1),
                regexp_extract(metrics.protocol, '[\[ ]penalty=([^,\]]+)', 1),
                regexp_extract(metrics.protocol, '(transductive)\]', 1)
            ],
            lambda word: word <> ''
        ) AS words,
        -- The protocol without what aligns.
        replace(
            regexp_replace(
                regexp_replace(
                    metrics.protocol,
                    '(, )?\b(align|align_on|align_shrinkage|normalise|penalty|penalty_weight)=[^,\]]+|(, )?transductive',
                    '',
                    'g'
                ),
                '\[, ',
                '['
            ),
            '[]',
            ''
        ) AS unaligned
    FROM run_metrics AS metrics
    JOIN runs USING (run_id)
    WHERE metrics.split = 'test'
        AND metrics.eval_on NOT IN ('macro', 'pooled')
        AND NOT metrics.seen
        AND metrics.nothing_learned IS NULL
)
SELECT
    eval_on,
    CASE
        WHEN train_on = eval_on THEN 'alone'
        WHEN list_contains(string_split(train_on, ' + '), eval_on) THEN 'together'
        ELSE 'transfer'
    END AS setting,
    train_on,
    CASE WHEN len(words) = 0 THEN 'none' ELSE array_to_string(words, ', ') END AS aligned_by,
    backbone,
    weights,
    longest_edge,
    pixel_size_nm,
    regime,
    unaligned AS protocol,
    sampling,
    "precision",
    audit_accepted,
    data,
    n_slices,
    seed,
    run_id,
    iou_fg
FROM scores;
COMMENT ON VIEW aligned_scores IS 'Test scores of runs that learned something, with what aligned their pixels, tokens or heads.';
COMMENT ON COLUMN aligned_scores.setting IS 'alone: trained on that dataset; together: on it and others; transfer: on others alone.';
COMMENT ON COLUMN aligned_scores.aligned_by IS 'What aligns, as standardise, or mmd; none where nothing does.';
COMMENT ON COLUMN aligned_scores.protocol IS 'The protocol without what aligns.';
