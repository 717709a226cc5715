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

from emcache.cache.feature_set import FeatureSet, list_feature_sets
from emcache.cache.shards import StoredSlice

_Key = tuple[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Donated:
    """What an older feature set holds of one slice."""

    tokens: Float[np.ndarray, "row col channel"]
    pooled: Float32[np.ndarray, " channel"]
    cls: Float32[np.ndarray, " channel"]


class Donors:
    """Slices by the hash of their pixels and their grid, and who holds their tokens."""

    def __init__(self, sources: dict[_Key, tuple[FeatureSet, int]]) -> None:
        self._sources = sources
        self._vectors: dict[str, tuple[Float32[np.ndarray, "slice channel"], ...]] = {}

    @classmethod
    def find(cls, cache: Path, recipe_sha256: str, slices: Iterable[StoredSlice]) -> Donors:
        """Look through a cache for feature sets of the same recipe that hold some of the slices."""
        wanted = {_key(item) for item in slices}
        sources: dict[_Key, tuple[FeatureSet, int]] = {}
        for feature_set in list_feature_sets(cache):
            if feature_set.manifest["recipe_sha256"] == recipe_sha256:
                for position, item in enumerate(feature_set.slices):
                    if _key(item) in wanted:
                        sources.setdefault(_key(item), (feature_set, position))
        return cls(sources)

    def __contains__(self, item: StoredSlice) -> bool:
        return _key(item) in self._sources

    def read(self, item: StoredSlice) -> Donated:
        """Tokens and vectors of a slice.

        Raises:
            StoreError: The older feature set is damaged.
        """
        source, position = self._sources[_key(item)]
        return Donated(source.tokens(position), *self.vectors(item))

    def vectors(
        self, item: StoredSlice
    ) -> tuple[Float32[np.ndarray, " channel"], Float32[np.ndarray, " channel"]]:
        """Mean of the patch tokens and class token of a slice; the tokens themselves are not read.

        Raises:
            StoreError: The older feature set is damaged.
        """
        source, position = self._sources[_key(item)]
        if source.name not in self._vectors:
            self._vectors[source.name] = (source.pooled(), source.cls())
        pooled, cls = self._vectors[source.name]
        return pooled[position], cls[position]


def _key(item: StoredSlice) -> _Key:
    return item.pixel_sha256, item.grid
