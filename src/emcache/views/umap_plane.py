"""Tokens in a plane by UMAP, where umap-learn is installed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from emcache.errors import UsageError

MOST_TOKENS = 20_000
"""Of more a sample is drawn: UMAP takes minutes for it."""


def umap_plane(
    deviations: Float32[np.ndarray, "token component"],
) -> Float32[np.ndarray, "token 2"]:
    """Place tokens by UMAP (McInnes et al., 2018), with its own defaults and seed 0.

    Args:
        deviations: Of unit tokens from their mean: their Euclidean distances are those of cosines.

    Returns:
        NaN for tokens that are not in the sample.

    Raises:
        UsageError: umap-learn is not installed.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise UsageError(
            f"UMAP cannot be imported ({error}); install it with `pip install umap-learn`, or "
            f"leave --umap out."
        ) from error
    chosen = np.sort(np.random.default_rng(0).permutation(len(deviations))[:MOST_TOKENS])
    plane = np.full((len(deviations), 2), np.nan, np.float32)
    plane[chosen] = UMAP(random_state=0).fit_transform(deviations[chosen])
    return plane
