-- Distances with the arithmetic of their features and their alignment; two measurements may differ in these alone.
CREATE VIEW measured_gaps AS
WITH recipes AS (
    SELECT recipe_sha256, any_value(precision) AS precision
    FROM feature_sets
    GROUP BY recipe_sha256
)
SELECT gaps.*, coalesce(recipes.precision, runs.precision) AS precision, gap_measurements.align
FROM gaps
LEFT JOIN gap_measurements USING (gap_id)
LEFT JOIN recipes USING (recipe_sha256)
LEFT JOIN runs ON runs.run_id = gaps.run_id;
COMMENT ON VIEW measured_gaps IS 'Distances between domains, with the arithmetic of the features that they were measured on, and how these were aligned.';
