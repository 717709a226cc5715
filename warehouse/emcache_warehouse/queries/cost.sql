-- What each feature set cost, and what the training that read it saved; a run that read two counts for both.
-- columns: feature_set, dataset, backbone, weights, longest_edge, n_slices, n_files, token_bytes, total_bytes, n_extractions, extract_seconds, n_runs, train_seconds, train_seconds_per_run, backbone_seconds_saved, break_even_epoch
WITH extractions AS (
    -- Size and slices as of the newest extraction; seconds of all of them.
    SELECT
        feature_set,
        arg_max(dataset, record_id) AS dataset,
        arg_max(backbone, record_id) AS backbone,
        arg_max(weights, record_id) AS weights,
        arg_max(longest_edge, record_id) AS longest_edge,
        arg_max(n_slices, record_id) AS n_slices,
        arg_max(n_files, record_id) AS n_files,
        arg_max(token_bytes, record_id) AS token_bytes,
        arg_max(total_bytes, record_id) AS total_bytes,
        count(*) AS n_extractions,
        sum(compute_seconds) AS extract_seconds
    FROM feature_sets
    GROUP BY feature_set
),
reads AS (
    SELECT
        run_id,
        train_seconds,
        epochs_run,
        n_train + n_val AS slices_per_epoch,
        feature_sets,
        unnest(feature_sets) AS feature_set
    FROM shown_runs
),
training AS (
    SELECT
        feature_set,
        count(DISTINCT run_id) AS n_runs,
        sum(train_seconds) AS train_seconds,
        -- Slices of a run on several datasets count for each by its share of the sets.
        sum(epochs_run * slices_per_epoch / len(feature_sets)) AS slice_passes,
        avg(slices_per_epoch / len(feature_sets)) AS slices_per_epoch
    FROM (SELECT DISTINCT * FROM reads)
    GROUP BY feature_set
)
SELECT
    extractions.*,
    coalesce(training.n_runs, 0) AS n_runs,
    training.train_seconds,
    training.train_seconds / training.n_runs AS train_seconds_per_run,
    -- Without the cache the backbone would run over these slices in every epoch.
    training.slice_passes * extractions.extract_seconds / extractions.n_slices
        AS backbone_seconds_saved,
    extractions.n_slices / training.slices_per_epoch AS break_even_epoch
FROM extractions
LEFT JOIN training USING (feature_set)
ORDER BY extract_seconds DESC, feature_set;
