-- Test scores by the number of slices that were annotated, a method for each backbone, regime and protocol; runs that learned nothing count with what they score.
-- columns: eval_on, train_on, method, backbone, weights, longest_edge, pixel_size_nm, regime, protocol, sampling, precision, audit_accepted, data, n_slices, annotated_slices, labelled_pixels, clicks, seed, run_id, train_seconds, iou_fg
SELECT
    metrics.eval_on,
    metrics.train_on,
    CASE metrics.regime WHEN 'few-label' THEN runs.head ELSE metrics.regime || ', ' || runs.head END AS method,
    metrics.backbone,
    metrics.weights,
    metrics.longest_edge,
    runs.pixel_size_nm,
    metrics.regime,
    -- The protocol without the number of slices; what was drawn in each of them stays.
    replace(
        replace(
            regexp_replace(
                metrics.protocol,
                '(, )?\b(train_slices|from_slices)=[^,\]]+',
                '',
                'g'
            ),
            '[, ',
            '['
        ),
        '[]',
        ''
    ) AS protocol,
    metrics.sampling,
    metrics."precision",
    metrics.audit_accepted,
    metrics.data,
    metrics.n_slices,
    runs.annotated_slices,
    runs.labelled_pixels,
    runs.clicks,
    metrics.seed,
    metrics.run_id,
    runs.train_seconds,
    metrics.iou_fg
FROM run_metrics AS metrics
JOIN runs USING (run_id)
WHERE metrics.split = 'test'
    AND metrics.eval_on = metrics.train_on
    AND NOT metrics.seen
    AND runs.annotated_slices > 0
ORDER BY metrics.eval_on, method, protocol, metrics.weights, metrics.longest_edge, runs.annotated_slices, runs.labelled_pixels, metrics.seed, metrics.run_id;
