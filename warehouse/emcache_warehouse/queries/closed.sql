-- Does an alignment close the gap? Paired differences of test IoU over the seeds that both sides have: training together less alone, and transfer with alignment less transfer without; 95 % intervals by Student's t.
-- columns: comparison, eval_on, train_on, aligned_by, backbone, weights, longest_edge, pixel_size_nm, regime, protocol, n_seeds, iou_before, iou_after, iou_change, iou_change_low, iou_change_high, answer
SELECT
    comparison,
    eval_on,
    train_on,
    aligned_by,
    backbone,
    weights,
    longest_edge,
    pixel_size_nm,
    regime,
    protocol,
    n_seeds,
    iou_before,
    iou_after,
    iou_change,
    iou_change_low,
    iou_change_high,
    answer
FROM alignment_differences
ORDER BY comparison, eval_on, train_on, iou_change DESC, aligned_by;
