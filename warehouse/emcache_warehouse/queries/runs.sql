-- Every run, newest first: what it trained, how it scored on its own test slices, and whether it was set aside.
-- columns: run_id, started_at, regime, backbone, weights, longest_edge, pixel_size_nm, protocol, train_on, sampling, precision, seed, epochs_run, best_epoch, stopped_by, iou_fg, nothing_learned, hidden, hidden_why
SELECT
    runs.run_id,
    records.started_at,
    runs.regime,
    runs.backbone,
    runs.weights,
    runs.longest_edge,
    runs.pixel_size_nm,
    runs.protocol,
    runs.train_on,
    runs.sampling,
    runs."precision",
    runs.seed,
    runs.epochs_run,
    runs.best_epoch,
    runs.stopped_by,
    -- Of several datasets the mean of their scores.
    scores.iou_fg,
    runs.nothing_learned,
    runs.hidden,
    runs.hidden_why
FROM shown_runs AS runs
JOIN records ON records.record_id = runs.run_id
LEFT JOIN run_metrics AS scores
    ON scores.run_id = runs.run_id
    AND scores.split = 'test'
    AND NOT scores.seen
    AND scores.eval_on = if(contains(runs.train_on, ' + '), 'macro', runs.train_on)
ORDER BY runs.run_id DESC;
