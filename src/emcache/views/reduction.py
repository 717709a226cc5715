"""Patch tokens in fewer bytes that keep their cosine similarities.

Tokens are brought to unit length. Of two unit vectors ``t`` and ``q``, and the mean ``m`` of all::

    t . q  =  (t - m) . (q - m)  +  m . t  +  m . q  -  m . m

The last three terms are kept as they are, a number for each token. The first one is a product of
deviations from the mean, of which the first principal components are stored in 8 bits, with a scale
for each component. So an error concerns what tells tokens apart, and not the mean that they share,
which in a vision transformer is most of their length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Int8, Integer
from sklearn.decomposition import PCA

from emcache.errors import StoreError

_LARGEST = 127
_SAMPLE = 1024


@dataclass(frozen=True, slots=True)
class CosineError:
    """How far the reduced tokens' cosine similarities are from those of the tokens."""

    largest: float
    """The largest difference, over all pairs of a sample of tokens."""
    typical: float
    """Root of the mean square difference."""
    spread: float
    """Standard deviation of the similarities themselves, to compare with."""


@dataclass(frozen=True, slots=True)
class ReducedTokens:
    """Tokens of all slices, one after the other."""

    coordinates: Int8[np.ndarray, "token component"]
    scales: Float32[np.ndarray, " component"]
    """What one step of a coordinate is worth."""
    along_mean: Float32[np.ndarray, " token"]
    """Product of each unit token and the mean of all."""
    mean_square: float
    """Squared length of that mean."""
    explained: float
    """Share of the variance around the mean that the components hold."""
    error: CosineError

    def deviations(self) -> Float32[np.ndarray, "token component"]:
        """Of unit tokens from their mean, along the components."""
        values: Float32[np.ndarray, "token component"] = (
            self.coordinates.astype(np.float32) * self.scales
        )
        return values


def reduce_tokens(
    grids: Sequence[Float[np.ndarray, "_ _ channel"]], components: int
) -> ReducedTokens:
    """Reduce the tokens of slices together, by one basis.

    Args:
        grids: Tokens of each slice, in any float type.
        components: The most principal components to keep.

    Raises:
        StoreError: A token is not finite, or has no length.
    """
    units = np.concatenate([_unit(grid) for grid in grids])
    count = min(components, units.shape[1], len(units))
    with np.errstate(invalid="ignore"):  # tokens that are all alike have no variance to share
        pca = PCA(count, svd_solver="covariance_eigh").fit(units)
    mean = pca.mean_.astype(np.float32)
    deviations = (units - mean) @ pca.components_.T.astype(np.float32)
    scales = np.abs(deviations).max(axis=0) / _LARGEST
    # A component along which nothing differs.
    scales[scales == 0] = 1
    coordinates = np.rint(deviations / scales).astype(np.int8)
    along_mean = units @ mean
    reduced = ReducedTokens(
        coordinates,
        scales.astype(np.float32),
        along_mean.astype(np.float32),
        float(mean @ mean),
        float(np.nan_to_num(pca.explained_variance_ratio_.sum(), nan=1.0)),
        CosineError(0.0, 0.0, 0.0),
    )
    return replace(reduced, error=_error(units, reduced))


def count_pixels(
    labels: Integer[np.ndarray, "row col"], ignored: int, grid: tuple[int, int]
) -> Integer[np.ndarray, "token 2"]:
    """Of each token, its pixels of foreground and those that are not ignored.

    Args:
        labels: 0 background, ``ignored``, anything else foreground.
        ignored: Label of pixels that do not count.
        grid: Rows and columns of the tokens.
    """
    rows, columns = (
        np.arange(side) * tokens // side for side, tokens in zip(labels.shape, grid, strict=True)
    )
    flat = (rows[:, None] * grid[1] + columns).ravel()
    seen = (labels != ignored).ravel()
    inside = (labels != 0).ravel() & seen
    most = grid[0] * grid[1]
    return np.stack(
        [np.bincount(flat, weights=which, minlength=most) for which in (inside, seen)], axis=1
    ).astype(np.int64)


def _unit(grid: Float[np.ndarray, "row col channel"]) -> Float32[np.ndarray, "token channel"]:
    tokens = np.asarray(grid, np.float32).reshape(-1, grid.shape[-1])
    lengths = np.linalg.norm(tokens, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise StoreError(
            "a token is not finite or has no length, so that it has no similarity to others; "
            "extract again with --dtype float32 or --precision float32."
        )
    unit: Float32[np.ndarray, "token channel"] = tokens / lengths
    return unit


def _error(units: Float32[np.ndarray, "token channel"], reduced: ReducedTokens) -> CosineError:
    chosen = np.random.default_rng(0).permutation(len(units))[:_SAMPLE]
    exact = units[chosen].astype(np.float64) @ units[chosen].T
    deviations = reduced.deviations()[chosen].astype(np.float64)
    along = reduced.along_mean[chosen].astype(np.float64)
    found = deviations @ deviations.T + along[:, None] + along - reduced.mean_square
    # A token and itself are known to be 1 apart from any basis.
    pairs = ~np.eye(len(chosen), dtype=bool)
    if not pairs.any():
        return CosineError(0.0, 0.0, 0.0)
    apart = np.abs(found - exact)[pairs]
    return CosineError(
        float(apart.max()), float(np.sqrt((apart**2).mean())), float(exact[pairs].std())
    )
