"""Tokens as colours: the first three principal components as red, green and blue.

As in the published pictures of DINOv2 (Oquab et al., 2024), without the step that removes a
background. Each component is cut at its 1 % and 99 % quantiles over all tokens and brought to 0 to
255. The sign of a component is chosen so that its largest loading is positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8
from sklearn.decomposition import PCA

_CUT = 1.0


@dataclass(frozen=True, slots=True)
class ColourBasis:
    """What makes colours of tokens, fitted to some of them."""

    mean: Float32[np.ndarray, " channel"]
    components: Float32[np.ndarray, "component channel"]
    """Three, or fewer where there are no more."""
    low: Float64[np.ndarray, " component"]
    """What becomes 0."""
    high: Float64[np.ndarray, " component"]
    """What becomes 255."""

    @classmethod
    def fit(cls, grids: Sequence[Float[np.ndarray, "_ _ channel"]]) -> ColourBasis:
        """Fit it to the tokens of slices.

        Args:
            grids: Of each slice.
        """
        tokens = np.concatenate(
            [np.asarray(grid, np.float32).reshape(-1, grid.shape[-1]) for grid in grids]
        )
        with np.errstate(invalid="ignore"):  # tokens that are all alike have no variance to share
            pca = PCA(min(3, *tokens.shape), svd_solver="covariance_eigh").fit(tokens)
        largest = np.abs(pca.components_).argmax(axis=1)[:, None]
        signs = np.sign(np.take_along_axis(pca.components_, largest, axis=1))
        components = (pca.components_ * signs).astype(np.float32)
        mean = pca.mean_.astype(np.float32)
        low, high = np.percentile((tokens - mean) @ components.T, [_CUT, 100 - _CUT], axis=0)
        return cls(mean, components, low.astype(np.float64), high.astype(np.float64))

    def colours(self, grid: Float[np.ndarray, "row col channel"]) -> UInt8[np.ndarray, "row col 3"]:
        """Colours of the tokens of a slice."""
        values = (np.asarray(grid, np.float32) - self.mean) @ self.components.T
        span = self.high - self.low
        shares = np.clip((values - self.low) / np.where(span > 0, span, 1), 0, 1)
        colours = np.zeros((*grid.shape[:2], 3), np.uint8)
        colours[..., : shares.shape[-1]] = np.rint(shares * 255)
        return colours


def pca_colours(
    grids: Sequence[Float[np.ndarray, "_ _ channel"]],
) -> list[UInt8[np.ndarray, "row col 3"]]:
    """Colours of the tokens of slices, by one basis for all of them.

    Args:
        grids: Tokens of each slice.
    """
    basis = ColourBasis.fit(grids)
    return [basis.colours(grid) for grid in grids]
