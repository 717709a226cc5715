-- Test scores by alignment: of runs on that dataset alone, on others (transfer), and on it together with others; runs that learned nothing are left out.
-- columns: eval_on, setting, train_on, aligned_by, backbone, weights, longest_edge, pixel_size_nm, regime, protocol, sampling, precision, audit_accepted, data, n_slices, seed, run_id, iou_fg
SELECT
    eval_on,
    setting,
    train_on,
    aligned_by,
    backbone,
    weights,
    longest_edge,
    pixel_size_nm,
    regime,
    protocol,
    sampling,
    "precision",
    audit_accepted,
    data,
    n_slices,
    seed,
    run_id,
    iou_fg
FROM aligned_scores
ORDER BY eval_on, setting, train_on, aligned_by <> 'none', aligned_by, backbone, weights, longest_edge, regime, protocol, seed;
