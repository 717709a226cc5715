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

import numpy as np
from jaxtyping import Float, Float64
from scipy.linalg import qr, svdvals

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
