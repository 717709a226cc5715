"""Tokens as colours: the first three principal components as red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.decomposition import PCA

_CUT = 1.0


def pca_colours(
    grids: Sequence[Float[np.ndarray, "_ _ channel"]],
) -> list[UInt8[np.ndarray, "row col 3"]]:
    """Colours of the tokens of slices, by one basis for all of them.

    As in the published pictures of DINOv2 (Oquab et al., 2024), without the step that removes a
    background. Each component is cut at its 1 % and 99 % quantiles over all slices and brought to 0
    to 255. The sign of a component is chosen so that its largest loading is positive.

    Args:
        grids: Tokens of each slice.
    """
    tokens = np.concatenate(
        [np.asarray(grid, np.float32).reshape(-1, grid.shape[-1]) for grid in grids]
    )
    with np.errstate(invalid="ignore"):  # tokens that are all alike have no variance to share
        pca = PCA(min(3, *tokens.shape), svd_solver="covariance_eigh").fit(tokens)
    signs = np.sign(
        np.take_along_axis(
            pca.components_, np.abs(pca.components_).argmax(axis=1)[:, None], axis=1
        ).ravel()
    )
    values = np.zeros((len(tokens), 3))
    values[:, : len(signs)] = pca.transform(tokens) * signs
    low, high = np.percentile(values, [_CUT, 100 - _CUT], axis=0)
    shares = (values - low) / np.where(high > low, high - low, 1)
    colours = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    ends = np.cumsum([grid.shape[0] * grid.shape[1] for grid in grids])[:-1]
    return [
        part.reshape(*grid.shape[:2], 3)
        for part, grid in zip(np.split(colours, ends), grids, strict=True)
    ]
