-- The newest times of each stage against the number of slices, on each machine.
-- columns: machine, stage, n_slices, seconds, seconds_per_slice
SELECT machine, stage, n_slices, seconds, seconds / n_slices AS seconds_per_slice
FROM benchmark_growth
JOIN benchmark_runs USING (bench_id)
QUALIFY bench_id = max(bench_id) OVER (PARTITION BY machine, stage)
ORDER BY machine, stage, n_slices;
