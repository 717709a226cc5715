-- Table 7 of the paper (trainable parameters in millions) beside what our runs trained.
-- columns: backbone, timm_or_open_clip, embed_dim, patch, head_only, head_only_pct, lora_plus_head, lora_plus_head_pct, our_head_only, our_lora_plus_head
WITH ours AS (
    -- With the study's head and adapters; another head or rank trains another number.
    SELECT
        backbone,
        max(coalesce(trainable_parameters, head_parameters)) FILTER (WHERE regime = 'frozen') / 1e6 AS our_head_only,
        max(trainable_parameters) FILTER (WHERE regime = 'lora') / 1e6 AS our_lora_plus_head
    FROM shown_runs
    WHERE NOT regexp_matches(protocol, '[\[ ](head|lora_rank|lora_targets)=')
    GROUP BY backbone
)
SELECT
    paper.*,
    round(ours.our_head_only, 3) AS our_head_only,
    round(ours.our_lora_plus_head, 3) AS our_lora_plus_head
FROM paper_parameters AS paper
LEFT JOIN ours USING (backbone)
ORDER BY paper.lora_plus_head, paper.backbone;
