"""Where training examples come from: cached tokens, or the slices themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from emcache.cache.feature_set import FeatureSet
from emcache.cache.inputs import normalise
from emcache.cache.labels import LabelSet
from emcache.cache.shards import Grid
from emcache.data.classes import ClassRule
from emcache.data.dataset import Slice
from emcache.data.training_pixels import training_image, training_mask


class Example(NamedTuple):
    """One slice with its mask, as it waits between epochs."""

    values: Shaped[Tensor, "row col *channel"]
    """Tokens, or 8-bit pixels."""
    mask: UInt8[Tensor, "height width"]
    """Labels: 0 background, 1 and up the classes, 255 ignored."""


@runtime_checkable
class Reader(Protocol):
    """Examples by their position: those of the first source, then those of the next."""

    def read(self, position: int) -> Example:
        """One example, from disk."""

    def inputs(
        self, values: Shaped[Tensor, "batch row col *channel"]
    ) -> Float[Tensor, "batch depth row col"]:
        """What the model takes, from the values of examples of one shape."""

    @property
    def bytes(self) -> int:
        """Memory that all examples take."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Tokens of one source with their labels."""

    feature_set: FeatureSet
    labels: LabelSet


class TokenReader:
    """Patch tokens from feature sets: for heads alone."""

    def __init__(self, sources: Sequence[LabelledFeatures]) -> None:
        self._sources = sources
        self._places = [
            (source, local) for source in sources for local in range(len(source.labels.slices))
        ]

    def read(self, position: int) -> Example:
        """Tokens and mask of one slice."""
        source, local = self._places[position]
        # ascontiguousarray also makes a read-only view writable, which torch asks for.
        tokens = np.ascontiguousarray(source.feature_set.tokens(local))
        mask = np.ascontiguousarray(source.labels.mask(local))
        return Example(torch.from_numpy(tokens), torch.from_numpy(mask))

    def inputs(
        self, values: Shaped[Tensor, "batch row col *channel"]
    ) -> Float[Tensor, "batch depth row col"]:
        """Tokens in float32, channels last in memory and seen as channels first."""
        return values.float().permute(0, 3, 1, 2)

    @property
    def bytes(self) -> int:
        """Of tokens and masks."""
        return sum(_resident_bytes(source.feature_set) for source in self._sources)


@dataclass(frozen=True, slots=True)
class SizedSlice:
    """A labelled slice with the size that it is trained at."""

    slice: Slice
    grid: Grid
    """Rows and columns of tokens."""
    classes: ClassRule
    """What the mask's values stand for."""


class PixelReader:
    """Slices at training size: for models that run the backbone at every step."""

    def __init__(self, slices: Sequence[SizedSlice], patch: int) -> None:
        self._slices = slices
        self._patch = patch

    def read(self, position: int) -> Example:
        """Pixels and mask of one slice."""
        item = self._slices[position]
        size = (item.grid[0] * self._patch, item.grid[1] * self._patch)
        pixels = training_image(item.slice, size)
        mask = training_mask(item.slice, item.classes, size)
        return Example(torch.from_numpy(pixels), torch.from_numpy(mask))

    def inputs(
        self, values: Shaped[Tensor, "batch row col *channel"]
    ) -> Float[Tensor, "batch depth row col"]:
        """Three normalised channels."""
        return normalise(values)

    @property
    def bytes(self) -> int:
        """Of pixels and masks."""
        return sum(2 * item.grid[0] * item.grid[1] * self._patch**2 for item in self._slices)


def _resident_bytes(feature_set: FeatureSet) -> int:
    facts = feature_set.description
    per_token = facts["dim"] * np.dtype(facts["dtype"]).itemsize + facts["patch"] ** 2
    return sum(int(np.prod(item.grid)) * per_token for item in feature_set.slices)
