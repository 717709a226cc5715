-- Distances between domains, the newest of each pair (whichever way round), backbone, level, class and alignment.
-- columns: domain_a, domain_b, backbone, weights, longest_edge, pixel_size_nm, precision, regime, run_id, recipe_sha256, level, class, align, n_a, n_b, dim, effective_rank, frechet, frechet_se, frechet_low, frechet_high, n_yardstick, frechet_within_a, frechet_within_b, frechet_at_n, frechet_infinity, kernel, kernel_name, probe_accuracy, probe_auroc, probe_p_value, gap_id
SELECT
    domain_a,
    domain_b,
    backbone,
    weights,
    longest_edge,
    pixel_size_nm,
    precision,
    regime,
    run_id,
    recipe_sha256,
    level,
    class,
    align,
    n_a,
    n_b,
    dim,
    effective_rank,
    frechet,
    frechet_se,
    frechet_low,
    frechet_high,
    n_yardstick,
    frechet_within_a,
    frechet_within_b,
    frechet_at_n,
    frechet_infinity,
    kernel,
    kernel_name,
    probe_accuracy,
    probe_auroc,
    probe_p_value,
    gap_id
FROM measured_gaps
QUALIFY row_number() OVER (
    PARTITION BY least(domain_a, domain_b), greatest(domain_a, domain_b), recipe_sha256, regime, run_id, level, class, align
    ORDER BY gap_id DESC
) = 1
ORDER BY level, class NULLS FIRST, align NULLS FIRST, domain_a, domain_b, backbone, weights, longest_edge, precision, regime, run_id;
