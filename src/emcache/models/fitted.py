"""Heads that are fitted to a few labelled tokens in one go, and not trained.

``prototype`` and ``knn`` follow DINOSim (González-Marfil et al., 2025): the distance of each token
to the mean of the clicked ones is smoothed, cut at its 1 % and 99 % quantiles and brought to 0 to
1; ``knn`` takes it of the annotated slices as a pseudo-label, and gives each token the mean over
its five nearest ones there. ``forest`` follows ConvPaint (Hinderling et al., 2024): a random forest
on the tokens under labelled pixels, with image filters beside them or alone. ``logistic`` is a
logistic regression on the same tokens.

The first two need foreground alone. Scores are resized bilinearly and then compared with a
threshold, as in these methods.
"""

from __future__ import annotations

from collections.abc import Mapping

from emcache.models.classifiers import (
    BoostingHead,
    FilterForestHead,
    ForestHead,
    LogisticHead,
    TokenFilterForestHead,
)
from emcache.models.fitting import FittedHead
from emcache.models.similarity import KnnHead, PrototypeHead

FITTED_HEADS: Mapping[str, type[FittedHead]] = {
    "prototype": PrototypeHead,
    "knn": KnnHead,
    "forest": ForestHead,
    "forest-filters": TokenFilterForestHead,
    "filters": FilterForestHead,
    "boosting": BoostingHead,
    "logistic": LogisticHead,
}
"""Every head that is fitted, by its kind."""


def build_fitted(
    kind: str, dim: int, seed: int, threshold: float, neighbours: int, trees: int
) -> FittedHead:
    """A head that is not fitted yet.

    Args:
        kind: Of :data:`FITTED_HEADS`.
        dim: Channels of a token.
        seed: Of what is random.
        threshold: Of the score.
        neighbours: Of ``knn``.
        trees: Of ``forest`` and ``boosting``.
    """
    return FITTED_HEADS[kind](dim, seed, threshold, neighbours, trees)
