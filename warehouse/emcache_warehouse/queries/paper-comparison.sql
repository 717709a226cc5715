-- Every cell of the paper beside our own figure for the same backbone, data and sampling.
-- columns: paper_table, backbone, regime, train_on, eval_on, sampling, paper_iou_fg_mean, paper_iou_fg_std, paper_n_runs, our_eval_on, weights, longest_edge, protocol, precision, audit_accepted, data, n_slices, n_runs, n_nothing_learned, iou_fg_mean, iou_fg_std, distinct_results, difference
SELECT *
FROM paper_comparison
ORDER BY paper_table, backbone, regime, train_on, eval_on, sampling, our_eval_on, weights, longest_edge, protocol, "precision", data;
