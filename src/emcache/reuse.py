"""Tokens that older feature sets hold already.

Same pixels and same recipe mean same tokens, whichever dataset they stand in: a dataset with one
changed slice computes one slice and copies the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from emcache.store import FeatureSet, list_feature_sets


@dataclass(frozen=True, slots=True)
class Donated:
    """What an older feature set holds of one slice."""

    tokens: Float[np.ndarray, "row col channel"]
    pooled: Float32[np.ndarray, " channel"]
    cls: Float32[np.ndarray, " channel"]


class Donors:
    """Slices by the hash of their pixels, and the feature sets that hold their tokens."""

    def __init__(self, sources: dict[str, tuple[FeatureSet, int]]) -> None:
        self._sources = sources
        self._vectors: dict[str, tuple[Float32[np.ndarray, "slice channel"], ...]] = {}

    @classmethod
    def find(cls, cache: Path, recipe_sha256: str, hashes: Iterable[str]) -> Donors:
        """Look through a cache for feature sets of the same recipe that hold some of the slices."""
        wanted = set(hashes)
        sources: dict[str, tuple[FeatureSet, int]] = {}
        for feature_set in list_feature_sets(cache):
            if feature_set.manifest["recipe_sha256"] == recipe_sha256:
                for position, item in enumerate(feature_set.slices):
                    if item.pixel_sha256 in wanted:
                        sources.setdefault(item.pixel_sha256, (feature_set, position))
        return cls(sources)

    def __contains__(self, pixel_sha256: str) -> bool:
        return pixel_sha256 in self._sources

    def read(self, pixel_sha256: str) -> Donated:
        """Tokens and vectors of a slice.

        Raises:
            StoreError: The older feature set is damaged.
        """
        source, position = self._sources[pixel_sha256]
        if source.name not in self._vectors:
            self._vectors[source.name] = (source.pooled(), source.cls())
        pooled, cls = self._vectors[source.name]
        return Donated(source.tokens(position), pooled[position], cls[position])
