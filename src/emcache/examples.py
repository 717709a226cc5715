"""Training examples from a feature set: tokens with their masks, wherever they are kept.

Three residencies, one interface: on the computing device, in main memory, or on disk with the next
batches read while the present one is used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import psutil
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from emcache.labels import LabelSet
from emcache.store import FeatureSet

_MEMORY_SHARE = 0.6
_READ_AHEAD = 4


class Residency(StrEnum):
    """Where tokens wait between epochs."""

    AUTO = "auto"
    DEVICE = "device"
    RAM = "ram"
    DISK = "disk"


class Batch(NamedTuple):
    """Examples of one grid shape, on the computing device."""

    positions: tuple[int, ...]
    """Which examples these are."""
    tokens: Float[Tensor, "batch channel row col"]
    """Patch tokens, channels last in memory."""
    masks: UInt8[Tensor, "batch height width"]
    """0 background, 1 foreground."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """One source of examples."""

    feature_set: FeatureSet
    labels: LabelSet


@runtime_checkable
class Examples(Protocol):
    """Examples by their position: those of the first source, then those of the next."""

    def steps(self, order: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        """The examples of each step of ``order``, one batch for each grid shape in it."""


class _Stored(NamedTuple):
    tokens: Float[Tensor, "row col channel"]
    mask: UInt8[Tensor, "height width"]


class _FromSources:
    def __init__(self, sources: Sequence[LabelledFeatures], device: torch.device) -> None:
        self._places = [
            (source, local) for source in sources for local in range(len(source.labels.slices))
        ]
        self._device = device

    def _read(self, position: int) -> _Stored:
        source, local = self._places[position]
        # ascontiguousarray also makes a read-only view writable, which torch asks for.
        tokens = np.ascontiguousarray(source.feature_set.tokens(local))
        mask = np.ascontiguousarray(source.labels.mask(local))
        return _Stored(torch.from_numpy(tokens), torch.from_numpy(mask))

    def _batches(self, stored: Mapping[int, _Stored]) -> list[Batch]:
        """Group a step by grid shape: slices of several sizes then need no padding."""
        groups: dict[torch.Size, list[int]] = {}
        for position, item in stored.items():
            groups.setdefault(item.tokens.shape, []).append(position)
        return [
            self._batch(positions, [stored[position] for position in positions])
            for positions in groups.values()
        ]

    def _batch(self, positions: Sequence[int], stored: Sequence[_Stored]) -> Batch:
        tokens = torch.stack([item.tokens for item in stored]).to(self._device).float()
        masks = torch.stack([item.mask for item in stored]).to(self._device)
        # A view: stored channels last, seen as channels first.
        return Batch(tuple(positions), tokens.permute(0, 3, 1, 2), masks)


class ResidentExamples(_FromSources):
    """Examples read once and kept, on the device or in main memory."""

    def __init__(
        self,
        sources: Sequence[LabelledFeatures],
        device: torch.device,
        positions: Sequence[int],
        *,
        on_device: bool,
    ) -> None:
        super().__init__(sources, device)
        self._kept: dict[int, _Stored] = {}
        for position in positions:
            item = self._read(position)
            if on_device:
                item = _Stored(*(tensor.to(device) for tensor in item))
            self._kept[position] = item

    def steps(self, order: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        """The batches of each step."""
        for positions in order:
            yield self._batches({position: self._kept[position] for position in positions})


class StreamedExamples(_FromSources):
    """Examples read from disk in every epoch, a few steps ahead."""

    def steps(self, order: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        """The batches of each step."""

        def reader(positions: Sequence[int]) -> Callable[[], dict[int, _Stored]]:
            return lambda: {position: self._read(position) for position in positions}

        waiting: deque[Future[dict[int, _Stored]]] = deque()
        with ThreadPoolExecutor(1, "read") as pool:
            try:
                for positions in order:
                    waiting.append(pool.submit(reader(positions)))
                    if len(waiting) > _READ_AHEAD:
                        yield self._batches(waiting.popleft().result())
                while waiting:
                    yield self._batches(waiting.popleft().result())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def open_examples(
    sources: Sequence[LabelledFeatures],
    device: torch.device,
    residency: Residency,
    positions: Sequence[int],
) -> tuple[Examples, Residency]:
    """Examples of these positions, and the residency that ``auto`` chose.

    ``auto`` keeps tokens on the device where they take less than 60 % of its free memory, else in
    main memory by the same rule, else streams them.
    """
    chosen = residency
    if residency is Residency.AUTO:
        needed = sum(_resident_bytes(source.feature_set) for source in sources)
        if device.type == "cuda" and needed < _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
            chosen = Residency.DEVICE
        elif needed < _MEMORY_SHARE * psutil.virtual_memory().available:
            chosen = Residency.RAM
        else:
            chosen = Residency.DISK
    if chosen is Residency.DISK:
        return StreamedExamples(sources, device), chosen
    on_device = chosen is Residency.DEVICE
    return ResidentExamples(sources, device, positions, on_device=on_device), chosen


def _resident_bytes(feature_set: FeatureSet) -> int:
    facts = feature_set.description
    per_token = facts["dim"] * np.dtype(facts["dtype"]).itemsize + facts["patch"] ** 2
    return sum(int(np.prod(item.grid)) * per_token for item in feature_set.slices)
