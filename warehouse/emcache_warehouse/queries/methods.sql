-- Test scores of every method on the data that it was trained on, with what each was given and took; published figures stand below, with their source.
-- columns: eval_on, kind, method, backbone, weights, longest_edge, regime, protocol, sampling, precision, audit_accepted, data, n_slices, seed, run_id, annotated_slices, labelled_pixels, clicks, trainable_parameters, train_seconds, iou_fg, iou_fg_low, iou_fg_high, citation, note
WITH ours AS (
    SELECT
        metrics.eval_on,
        CASE metrics.regime
            WHEN 'zero-shot' THEN 'no labels'
            WHEN 'few-label' THEN 'few labels'
            WHEN 'supervised' THEN 'from scratch'
            WHEN 'frozen' THEN 'frozen backbone'
            WHEN 'lora' THEN 'LoRA'
            WHEN 'full' THEN 'all weights'
            ELSE metrics.regime
        END AS kind,
        runs.head AS method,
        metrics.backbone,
        metrics.weights,
        metrics.longest_edge,
        metrics.regime,
        metrics.protocol,
        metrics.sampling,
        metrics."precision",
        metrics.audit_accepted,
        metrics.data,
        metrics.n_slices,
        metrics.seed,
        metrics.run_id,
        runs.annotated_slices,
        runs.labelled_pixels,
        runs.clicks,
        runs.trainable_parameters,
        runs.train_seconds,
        metrics.iou_fg,
        rows.iou_fg_low,
        rows.iou_fg_high
    FROM run_metrics AS metrics
    JOIN runs USING (run_id)
    JOIN leaderboard AS rows
        ON rows.regime = metrics.regime
        AND rows.backbone = metrics.backbone
        AND rows.weights = metrics.weights
        AND rows.longest_edge IS NOT DISTINCT FROM metrics.longest_edge
        AND rows.protocol = metrics.protocol
        AND rows.train_on = metrics.train_on
        AND rows.sampling = metrics.sampling
        AND rows."precision" IS NOT DISTINCT FROM metrics."precision"
        AND rows.eval_on = metrics.eval_on
        AND rows.split = metrics.split
        AND rows.seen = metrics.seen
        AND rows.audit_accepted IS NOT DISTINCT FROM metrics.audit_accepted
        AND rows.data IS NOT DISTINCT FROM metrics.data
        AND rows.n_slices = metrics.n_slices
        AND rows.n_near = metrics.n_near
    WHERE metrics.split = 'test' AND metrics.eval_on = metrics.train_on AND NOT metrics.seen
),
published AS (
    SELECT dataset, kind, method, iou_fg, citation, concat(labels, ' labels; ', note) AS note
    FROM literature_results
    UNION ALL
    SELECT
        eval_on,
        CASE regime WHEN 'lora' THEN 'LoRA' ELSE 'frozen backbone' END,
        backbone,
        iou_fg_mean,
        concat('arXiv 2602.08505, table ', paper_table),
        NULL
    FROM paper_results
    WHERE train_on = eval_on AND sampling = 'natural'
)
SELECT *, NULL AS citation, NULL AS note
FROM ours
UNION ALL BY NAME
SELECT datasets.dataset AS eval_on, published.* EXCLUDE (dataset)
FROM published
JOIN datasets ON coalesce(datasets.layout, datasets.dataset) = published.dataset
SEMI JOIN ours ON ours.eval_on = datasets.dataset
ORDER BY eval_on, run_id IS NULL, kind, method, protocol, weights, longest_edge, seed, run_id, citation, iou_fg;
