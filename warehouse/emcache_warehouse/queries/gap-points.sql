-- Slices in the plane of their principal components, by the newest measurement of each backbone, regime and set of domains.
-- columns: gap_id, backbone, weights, longest_edge, pixel_size_nm, precision, recipe_sha256, regime, run_id, align, domain, slice_id, pc1, pc2, explained1, explained2, thumbnail
WITH sets AS (
    SELECT gap_id, list(DISTINCT domain ORDER BY domain) AS domains FROM gap_points GROUP BY gap_id
),
measurements AS (
    SELECT DISTINCT
        gap_id,
        backbone,
        weights,
        longest_edge,
        pixel_size_nm,
        precision,
        regime,
        run_id,
        align,
        recipe_sha256
    FROM measured_gaps
    JOIN sets USING (gap_id)
    QUALIFY gap_id = max(gap_id) OVER (PARTITION BY recipe_sha256, align, domains)
)
SELECT
    gap_id,
    measurements.backbone,
    measurements.weights,
    measurements.longest_edge,
    measurements.pixel_size_nm,
    measurements.precision,
    measurements.recipe_sha256,
    measurements.regime,
    measurements.run_id,
    measurements.align,
    points.domain,
    points.slice_id,
    points.pc1,
    points.pc2,
    points.explained1,
    points.explained2,
    points.thumbnail
FROM gap_points AS points
JOIN measurements USING (gap_id)
ORDER BY
    measurements.backbone,
    measurements.weights,
    measurements.longest_edge,
    measurements.regime,
    gap_id,
    points.domain,
    points.rowid;
