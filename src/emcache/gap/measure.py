"""Everything that is measured between two sets of vectors, as one row; the kernel distance."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float64

from emcache.errors import UsageError
from emcache.gap.frechet import (
    Sample,
    at_infinity,
    effective_rank,
    frechet_distance,
    jackknife_interval,
    yardstick,
)
from emcache.gap.probe import probe

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


@dataclass(frozen=True, slots=True)
class Gap:
    """Distances between two sets, with what they must be read beside."""

    n_a: int
    """Vectors of the first set."""
    n_b: int
    """Vectors of the second."""
    dim: int
    """Numbers in a vector, D."""
    effective_rank: float
    """Of the set with the lower one; see :func:`emcache.gap.frechet.effective_rank`."""
    frechet: float
    """Squared Frechet distance, exact for these vectors."""
    frechet_se: float | None
    """Jackknife standard error over blocks of slices; None where there are too few."""
    frechet_low: float | None
    """Lower end of the 95 % interval."""
    frechet_high: float | None
    """Upper end."""
    n_yardstick: int | None
    """Vectors on each side of the next three, which therefore compare with one another."""
    frechet_within_a: float | None
    """Between contiguous halves of the first set."""
    frechet_within_b: float | None
    """Between contiguous halves of the second."""
    frechet_at_n: float | None
    """Between contiguous pieces of the two sets."""
    frechet_infinity: float | None
    """Extrapolated to infinitely many vectors; None where that cannot be estimated."""
    kernel: float | None
    """Squared MMD, neighbouring slices left out."""
    kernel_name: str
    """Its kernel."""
    probe_accuracy: float | None
    """Balanced accuracy of the linear probe; None where there are too few blocks to tell."""
    probe_auroc: float | None
    probe_p_value: float | None
    """Share of permutations of blocks with an AUROC at least as high."""

    def as_dict(self) -> dict[str, object]:
        """Columns of a row."""
        return asdict(self)


def measure(one: Sample, other: Sample, names: tuple[str, str]) -> Gap:
    """Measure two sets of vectors of one backbone.

    Raises:
        UsageError: A set has fewer than two vectors.
    """
    for side, name in zip((one, other), names, strict=True):
        if len(side) < 2:
            raise UsageError(
                f"{name} has {len(side)} of the vectors to compare; a distance needs at least two "
                f"on each side: choose a larger selection.",
                subject=name,
            )
    interval = jackknife_interval(one, other)
    yardsticks = yardstick(one, other)
    probed = probe(one, other)
    return Gap(
        n_a=len(one),
        n_b=len(other),
        dim=one.vectors.shape[1],
        effective_rank=min(effective_rank(side.vectors) for side in (one, other)),
        frechet=frechet_distance(one.vectors, other.vectors),
        frechet_se=None if interval is None else interval.standard_error,
        frechet_low=None if interval is None else interval.low,
        frechet_high=None if interval is None else interval.high,
        n_yardstick=None if yardsticks is None else yardsticks.vectors,
        frechet_within_a=None if yardsticks is None else yardsticks.within_one,
        frechet_within_b=None if yardsticks is None else yardsticks.within_other,
        frechet_at_n=None if yardsticks is None else yardsticks.between,
        frechet_infinity=at_infinity(one, other),
        kernel=kernel_distance(one, other),
        kernel_name=KERNEL,
        probe_accuracy=None if probed is None else probed.accuracy,
        probe_auroc=None if probed is None else probed.auroc,
        probe_p_value=None if probed is None else probed.p_value,
    )
