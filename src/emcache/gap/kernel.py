"""Kernel distance: the maximum mean discrepancy of two sets of vectors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from emcache.gap.blocks import Sample

KERNEL = "polynomial (x.y / D + 1)^3"
"""The kernel of the KID (Binkowski et al., ICLR 2018)."""


def kernel_distance(one: Sample, other: Sample, neighbours: int = 1) -> float | None:
    """Unbiased estimate of the squared MMD (Gretton et al., JMLR 13:723, 2012).

    Pairs of one set that are the same slice or up to ``neighbours`` apart are left out: they are
    alike because they touch, and would make every stack look far from every other. The estimate
    can be below 0.

    Args:
        one: One set.
        other: The other.
        neighbours: How far apart slices count as neighbours.

    Returns:
        None where a set has no pair of slices further apart.
    """
    within = 0.0
    sides = [np.asarray(side.vectors, dtype=np.float64) for side in (one, other)]
    for sample, side in zip((one, other), sides, strict=True):
        apart = np.abs(sample.owners[:, None] - sample.owners[None, :]) > neighbours
        if not apart.any():
            return None
        within += float(_kernel(side, side)[apart].mean())
    return within - 2 * float(_kernel(*sides).mean())


def _kernel(
    x: Float64[np.ndarray, "n channel"], y: Float64[np.ndarray, "m channel"]
) -> Float64[np.ndarray, "n m"]:
    values: Float64[np.ndarray, "n m"] = (x @ y.T / x.shape[1] + 1) ** 3
    return values
