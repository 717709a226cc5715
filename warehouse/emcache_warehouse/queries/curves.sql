-- Training and validation loss of every run, epoch by epoch.
-- columns: run_id, regime, backbone, weights, longest_edge, protocol, train_on, sampling, precision, seed, nothing_learned, epoch, train_loss, val_loss, val_iou_fg, is_best
SELECT
    runs.run_id,
    runs.regime,
    runs.backbone,
    runs.weights,
    runs.longest_edge,
    runs.protocol,
    runs.train_on,
    runs.sampling,
    runs."precision",
    runs.seed,
    runs.nothing_learned,
    epochs.epoch,
    epochs.train_loss,
    epochs.val_loss,
    epochs.val_iou_fg,
    coalesce(epochs.epoch = runs.best_epoch, false) AS is_best
FROM shown_runs AS runs
JOIN epochs USING (run_id)
ORDER BY runs.backbone, runs.train_on, runs.seed, runs.run_id, epochs.epoch;
