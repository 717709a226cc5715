-- What a run of one dataset loses on the test slices of another (on all where it has none), beside the distance between the two; runs that learned nothing are left out.
-- columns: train_on, eval_on, split, backbone, weights, longest_edge, pixel_size_nm, regime, protocol, precision, data, seed, run_id, iou_source, iou_target, iou_drop, frechet, frechet_low, frechet_high, n_a, n_b
WITH scores AS (
    SELECT
        metrics.run_id,
        metrics.regime,
        metrics.backbone,
        metrics.weights,
        metrics.longest_edge,
        runs.pixel_size_nm,
        metrics.protocol,
        metrics.precision,
        metrics.data,
        metrics.train_on,
        metrics.seed,
        metrics.eval_on,
        metrics.split,
        metrics.iou_fg,
        coalesce(bool_or(metrics.split = 'test') OVER (PARTITION BY metrics.run_id, metrics.eval_on), false) AS has_test
    FROM run_metrics AS metrics
    JOIN runs USING (run_id)
    WHERE metrics.eval_on NOT IN ('macro', 'pooled')
        AND NOT metrics.seen
        AND metrics.nothing_learned IS NULL
        AND NOT contains(metrics.train_on, ' + ')
),
distances AS (
    -- Both ways round, by the datasets alone: a split stands for its dataset where nothing better is there.
    SELECT
        unnest([
            {'one': domain_a, 'other': domain_b, 'n_one': n_a, 'n_other': n_b},
            {'one': domain_b, 'other': domain_a, 'n_one': n_b, 'n_other': n_a}
        ], recursive := true),
        gap_id,
        backbone,
        weights,
        longest_edge,
        pixel_size_nm,
        precision,
        regime,
        run_id,
        frechet,
        frechet_low,
        frechet_high
    FROM measured_gaps
    WHERE level = 'slice' AND align IS NULL
)
SELECT
    own.train_on,
    away.eval_on,
    away.split,
    own.backbone,
    own.weights,
    own.longest_edge,
    own.pixel_size_nm,
    own.regime,
    own.protocol,
    own.precision,
    own.data,
    own.seed,
    own.run_id,
    own.iou_fg AS iou_source,
    away.iou_fg AS iou_target,
    own.iou_fg - away.iou_fg AS iou_drop,
    distances.frechet,
    distances.frechet_low,
    distances.frechet_high,
    distances.n_one AS n_a,
    distances.n_other AS n_b
FROM scores AS own
JOIN scores AS away USING (run_id)
JOIN distances
    ON split_part(distances.one, ':', 1) = own.train_on
    AND split_part(distances.other, ':', 1) = away.eval_on
    AND distances.backbone = own.backbone
    AND distances.weights = own.weights
    AND distances.longest_edge IS NOT DISTINCT FROM own.longest_edge
    AND distances.pixel_size_nm IS NOT DISTINCT FROM own.pixel_size_nm
    AND distances.regime = own.regime
    AND (own.regime = 'frozen' OR distances.run_id = own.run_id)
WHERE own.eval_on = own.train_on AND own.split = 'test' AND away.eval_on <> own.train_on
    AND (away.split = 'test' OR NOT away.has_test)
QUALIFY row_number() OVER (
    PARTITION BY own.run_id, away.eval_on, away.split
    ORDER BY
        distances.other = away.eval_on DESC,
        distances.other = away.eval_on || ':' || away.split DESC,
        distances.one = own.train_on DESC,
        distances.precision IS NOT DISTINCT FROM own.precision DESC,
        distances.gap_id DESC
) = 1
ORDER BY own.train_on, away.eval_on, own.backbone, own.weights, own.longest_edge, own.regime, own.seed;
