-- Mean and spread of the foreground IoU over seeds, best first.
-- columns: regime, backbone, weights, longest_edge, protocol, train_on, sampling, eval_on, split, audit_accepted, n_slices, n_runs, iou_fg_mean, iou_fg_std, distinct_results
SELECT *
FROM leaderboard
ORDER BY iou_fg_mean DESC, backbone, weights, longest_edge, protocol, train_on, eval_on, split;
