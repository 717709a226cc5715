"""Frechet distance between Gaussians fitted to two sets of vectors, exactly.

The distance (Dowson and Landau, J. Multivariate Anal. 12:450, 1982), squared as in the FID::

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

needs no square root of a matrix. With the centred data scaled so that ``S1 = A^T A`` and
``S2 = B^T B``, the eigenvalues of ``S1 S2`` are the squared singular values of ``A B^T``, hence
``tr (S1 S2)^(1/2)`` is the nuclear norm of ``A B^T``: an SVD of n1 x n2 numbers in place of a root
of D x D. Where a side has more vectors than dimensions, the triangle of its QR decomposition takes
the place of its data: the singular values are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.linalg import qr, svdvals
from scipy.stats import t as student

MOST_BLOCKS = 10
"""Blocks that a stack is cut into, where it is long enough."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Vectors in the order of their stack."""

    vectors: Float[np.ndarray, "vector channel"]
    owners: Int64[np.ndarray, " vector"]
    """Position of the slice that each vector is of; it never falls."""

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of_slices(cls, vectors: Float[np.ndarray, "slice channel"]) -> Sample:
        """One vector a slice."""
        return cls(vectors, np.arange(len(vectors)))

    def blocks(self, shortest: int = 2) -> list[Int64[np.ndarray, _]]:
        """Cut the stack into blocks of nearly equally many neighbouring slices.

        Args:
            shortest: Fewest slices in a block, where there are that many.

        Returns:
            Positions of each block's vectors, at most :data:`MOST_BLOCKS` blocks.
        """
        slices = np.unique(self.owners)
        number = max(1, min(MOST_BLOCKS, len(slices) // shortest))
        return [
            np.flatnonzero(np.isin(self.owners, part)) for part in np.array_split(slices, number)
        ]

    def without(self, block: Int64[np.ndarray, _]) -> Float[np.ndarray, "rest channel"]:
        """The vectors that are not in a block."""
        kept = np.ones(len(self), dtype=bool)
        kept[block] = False
        rest: Float[np.ndarray, "rest channel"] = self.vectors[kept]
        return rest


Vectors = Float[np.ndarray, "_ channel"]
"""One vector a slice, or a token."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and a root of the covariance of a set of vectors."""

    count: int
    """Vectors."""
    mean: Float64[np.ndarray, " channel"]
    root: Float64[np.ndarray, "row channel"]
    """A with ``A^T A`` the covariance (divisor n - 1): at most D rows."""

    @classmethod
    def fit(cls, vectors: Vectors) -> Gaussian:
        """Fit to at least two vectors."""
        data = np.asarray(vectors, dtype=np.float64)
        mean = data.mean(axis=0)
        root = (data - mean) / np.sqrt(len(data) - 1)
        if root.shape[0] > root.shape[1]:
            root = qr(root, mode="r", check_finite=False)[0][: root.shape[1]]
        return cls(len(data), mean, root)

    @property
    def trace(self) -> float:
        """Of the covariance: total variance."""
        return float(np.einsum("ij,ij->", self.root, self.root))


def frechet_distance(one: Vectors, other: Vectors) -> float:
    """Squared Frechet distance between Gaussians fitted to two sets of at least two vectors."""
    return between(Gaussian.fit(one), Gaussian.fit(other))


def between(one: Gaussian, other: Gaussian) -> float:
    """Squared Frechet distance between two fitted Gaussians; never below 0."""
    shift = one.mean - other.mean
    overlap = float(svdvals(one.root @ other.root.T, check_finite=False).sum())
    return max(0.0, float(shift @ shift) + one.trace + other.trace - 2 * overlap)


def effective_rank(vectors: Vectors) -> float:
    """Exponential of the entropy of the covariance's normalised eigenvalues.

    Roy and Vetterli, EUSIPCO 2007. From 1 (all variance along one line) to the rank. 0 without
    variance.
    """
    values = svdvals(Gaussian.fit(vectors).root, check_finite=False) ** 2
    total = values.sum()
    if not total > 0:
        return 0.0
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


CONFIDENCE = 0.95
"""Of the interval."""
WELL_ABOVE = 5.0
"""The extrapolation needs this many vectors for each effective dimension."""

_PLACES = 5
_FRACTIONS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_DRAWS = 8


class Interval(NamedTuple):
    """A distance with its uncertainty."""

    standard_error: float
    low: float
    high: float


def jackknife_interval(one: Sample, other: Sample) -> Interval | None:
    """Standard error and 95 % interval of the distance, by leaving out one block at a time.

    The two sides are independent, so their jackknife variances (G - 1) / G * sum (d_g - mean d)^2
    add up (Efron and Stein, Ann. Statist. 9:586, 1981). The interval takes Student's t with the
    fewer side's blocks less one as degrees of freedom. A percentile bootstrap would not do:
    repeated vectors lower the rank, and the estimate itself lies outside the interval.

    Returns:
        None where a side has fewer than three blocks or a block's absence leaves fewer than two
        vectors.
    """
    sides = (one, other)
    cuts = [side.blocks(2 if len(np.unique(side.owners)) >= 6 else 1) for side in sides]
    if any(
        len(blocks) < 3 or len(side) - max(map(len, blocks)) < 2
        for side, blocks in zip(sides, cuts, strict=True)
    ):
        return None
    whole = [Gaussian.fit(side.vectors) for side in sides]
    variance = 0.0
    for place, (side, blocks) in enumerate(zip(sides, cuts, strict=True)):
        rest = whole[1 - place]
        left = np.array([between(Gaussian.fit(side.without(b)), rest) for b in blocks])
        variance += (len(left) - 1) / len(left) * float(((left - left.mean()) ** 2).sum())
    error = float(np.sqrt(variance))
    reach = error * float(student.ppf(0.5 + CONFIDENCE / 2, min(map(len, cuts)) - 1))
    distance = between(*whole)
    return Interval(error, max(0.0, distance - reach), distance + reach)


class Yardstick(NamedTuple):
    """Distances at one and the same N, so that they can be compared."""

    vectors: int
    """Vectors on each side of each of these distances."""
    within_one: float
    """Between contiguous pieces of the first set's two halves."""
    within_other: float
    """Between contiguous pieces of the second set's two halves."""
    between: float
    """Between contiguous pieces of the one set and of the other."""


def yardstick(one: Sample, other: Sample) -> Yardstick | None:
    """Distances within and between the sets, all of them at N = half of the smaller set.

    The estimate grows as N falls, so only distances at one N compare. Pieces are runs of
    neighbouring slices, since random halves of a stack interleave and look closer than they are;
    each figure is the mean over up to five places of the pieces.

    Returns:
        None where half of the smaller set is less than two vectors.
    """
    count = min(len(one), len(other)) // 2
    if count < 2:
        return None
    pieces = [_pieces(side.vectors, count) for side in (one, other)]
    within = [
        float(np.mean([between(a, b) for a, b in zip(*halves, strict=True)])) for halves in pieces
    ]
    crossed = [
        between(a, b)
        for mine, theirs in product(*pieces)
        for a, b in zip(mine, theirs, strict=False)
    ]
    return Yardstick(count, within[0], within[1], float(np.mean(crossed)))


def _pieces(side: Vectors, count: int) -> tuple[list[Gaussian], list[Gaussian]]:
    """Runs of ``count`` neighbours from the first half, and from the second."""
    half = len(side) // 2
    slack = half - count
    starts = np.unique(np.linspace(0, slack, min(_PLACES, slack + 1)).astype(int))
    second = len(side) - half
    return (
        [Gaussian.fit(side[start : start + count]) for start in starts],
        [Gaussian.fit(side[second + start : second + start + count]) for start in starts],
    )


def at_infinity(one: Sample, other: Sample, seed: int = 0) -> float | None:
    """The distance extrapolated to infinitely many vectors.

    A line through the distances of random subsets against 1 / N, read at 0 (Chong and Forsyth, CVPR
    2020): the estimate's bias falls with 1 / N.

    Returns:
        None where a side has fewer than :data:`WELL_ABOVE` vectors for each of its effective
        dimensions, which is where the line does not hold.
    """
    sides = (one.vectors, other.vectors)
    if any(len(side) < WELL_ABOVE * max(1.0, effective_rank(side)) for side in sides):
        return None
    rng = np.random.default_rng(seed)
    inverse, distances = [], []
    for fraction in _FRACTIONS:
        for _ in range(1 if fraction == 1 else _DRAWS):
            parts = [
                side[np.sort(rng.permutation(len(side))[: max(2, round(fraction * len(side)))])]
                for side in sides
            ]
            inverse.append(1 / fraction)
            distances.append(frechet_distance(*parts))
    weights = [1.0] * (len(inverse) - 1) + [float(_DRAWS)]
    _, intercept = np.polyfit(inverse, distances, 1, w=np.sqrt(weights))
    return max(0.0, float(intercept))
