-- Table 2 of the paper (large backbones with LoRA) beside our own figures, cell by cell.
-- columns: paper_table, backbone, regime, train_on, eval_on, sampling, paper_iou_fg_mean, paper_iou_fg_std, paper_n_runs, our_eval_on, weights, longest_edge, protocol, precision, audit_accepted, data, n_slices, n_runs, n_nothing_learned, iou_fg_mean, iou_fg_std, distinct_results, difference
SELECT *
FROM paper_comparison
WHERE paper_table = 2
ORDER BY regime, train_on, sampling, eval_on, backbone, our_eval_on, weights, longest_edge, protocol, "precision", data;
