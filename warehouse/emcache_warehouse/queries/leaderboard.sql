-- Mean and spread of the foreground IoU over seeds, best first.
-- columns: regime, backbone, weights, longest_edge, protocol, train_on, sampling, precision, eval_on, split, seen, audit_accepted, data, n_slices, n_near, n_runs, iou_fg_mean, iou_fg_std, distinct_results, n_nothing_learned, iou_fg_low, iou_fg_high
SELECT *
FROM leaderboard
ORDER BY iou_fg_mean DESC, backbone, weights, longest_edge, protocol, train_on, eval_on, split, seen, "precision", data;
