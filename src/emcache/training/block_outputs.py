"""Examples from the cached output of a block: for adapters on the blocks behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from emcache.cache.moments import Moments
from emcache.training.batches import Example, LabelledFeatures


class SequenceReader:
    """Whole sequences of tokens, those before the patches included, from raw feature sets.

    Args:
        sources: Tokens and labels of each source.
    """

    domains: Sequence[Moments] = ()
    """What comes out of an early block is not aligned."""

    def __init__(self, sources: Sequence[LabelledFeatures]) -> None:
        self._sources = sources
        self._places = [
            (number, local)
            for number, source in enumerate(sources)
            for local in range(len(source.labels.slices))
        ]
        self._prefix: dict[int, Float32[np.ndarray, "slice prefix channel"]] = {}

    def read(self, position: int) -> Example:
        """The sequence of one slice, and its mask."""
        number, local = self._places[position]
        source = self._sources[number]
        if number not in self._prefix:
            self._prefix[number] = source.feature_set.prefix()
        prefix, tokens = self._prefix[number][local], source.feature_set.tokens(local)
        sequence = np.concatenate([prefix, tokens.reshape(-1, tokens.shape[-1])])
        mask = np.ascontiguousarray(source.labels.mask(local))
        return Example(torch.from_numpy(sequence), torch.from_numpy(mask))

    def inputs(
        self, values: Shaped[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token channel"]:
        """The sequences as they are."""
        return values.float()

    @property
    def bytes(self) -> int:
        """Of sequences and masks; the few tokens before the patches are not counted."""
        return sum(source.bytes for source in self._sources)
