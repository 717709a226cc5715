"""Training examples from a feature set: tokens with their masks, wherever they are kept.

Three residencies, one interface: on the computing device, in main memory, or on disk with the next
batches read while the present one is used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import psutil
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from emcache.labels import LabelSet
from emcache.shards import Grid
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

    tokens: Float[Tensor, "batch channel row col"]
    """Patch tokens, channels last in memory."""
    masks: UInt8[Tensor, "batch height width"]
    """0 background, 1 foreground."""


@runtime_checkable
class Examples(Protocol):
    """Examples by their position in a feature set."""

    def grid(self, position: int) -> Grid:
        """Rows and columns of tokens of one example."""

    def batches(self, order: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """The batches of ``order``, each a list of positions of one grid shape."""


class _Stored(NamedTuple):
    tokens: Float[Tensor, "row col channel"]
    mask: UInt8[Tensor, "height width"]


class _FromFeatureSet:
    def __init__(self, feature_set: FeatureSet, labels: LabelSet, device: torch.device) -> None:
        self._feature_set = feature_set
        self._labels = labels
        self._device = device

    def grid(self, position: int) -> Grid:
        return self._feature_set.slices[position].grid

    def _read(self, position: int) -> _Stored:
        # ascontiguousarray also makes a read-only view writable, which torch asks for.
        tokens = np.ascontiguousarray(self._feature_set.tokens(position))
        mask = np.ascontiguousarray(self._labels.mask(position))
        return _Stored(torch.from_numpy(tokens), torch.from_numpy(mask))

    def _batch(self, stored: Sequence[_Stored]) -> Batch:
        tokens = torch.stack([item.tokens for item in stored])
        masks = torch.stack([item.mask for item in stored])
        tokens = tokens.to(self._device).float()
        # A view: stored channels last, seen as channels first.
        return Batch(tokens.permute(0, 3, 1, 2), masks.to(self._device))


class ResidentExamples(_FromFeatureSet):
    """Examples read once and kept, on the device or in main memory."""

    def __init__(
        self,
        feature_set: FeatureSet,
        labels: LabelSet,
        device: torch.device,
        positions: Sequence[int],
        *,
        on_device: bool,
    ) -> None:
        super().__init__(feature_set, labels, device)
        self._kept: dict[int, _Stored] = {}
        for position in positions:
            item = self._read(position)
            if on_device:
                item = _Stored(*(tensor.to(device) for tensor in item))
            self._kept[position] = item

    def batches(self, order: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """The batches of ``order``."""
        for positions in order:
            yield self._batch([self._kept[position] for position in positions])


class StreamedExamples(_FromFeatureSet):
    """Examples read from disk in every epoch, a few batches ahead."""

    def batches(self, order: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """The batches of ``order``."""

        def reader(positions: Sequence[int]) -> Callable[[], list[_Stored]]:
            return lambda: [self._read(position) for position in positions]

        waiting: deque[Future[list[_Stored]]] = deque()
        with ThreadPoolExecutor(1, "read") as pool:
            try:
                for positions in order:
                    waiting.append(pool.submit(reader(positions)))
                    if len(waiting) > _READ_AHEAD:
                        yield self._batch(waiting.popleft().result())
                while waiting:
                    yield self._batch(waiting.popleft().result())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def open_examples(
    feature_set: FeatureSet,
    labels: LabelSet,
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
        needed = _resident_bytes(feature_set, positions)
        if device.type == "cuda" and needed < _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
            chosen = Residency.DEVICE
        elif needed < _MEMORY_SHARE * psutil.virtual_memory().available:
            chosen = Residency.RAM
        else:
            chosen = Residency.DISK
    if chosen is Residency.DISK:
        return StreamedExamples(feature_set, labels, device), chosen
    return (
        ResidentExamples(
            feature_set, labels, device, positions, on_device=chosen is Residency.DEVICE
        ),
        chosen,
    )


def _resident_bytes(feature_set: FeatureSet, positions: Sequence[int]) -> int:
    facts = feature_set.description
    per_token = facts["dim"] * np.dtype(facts["dtype"]).itemsize + facts["patch"] ** 2
    grids = (feature_set.slices[position].grid for position in positions)
    return sum(rows * columns * per_token for rows, columns in grids)
