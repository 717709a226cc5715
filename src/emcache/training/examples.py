"""Training examples in batches, wherever they are kept.

Three residencies, one interface: on the computing device, in main memory, or on disk with the next
batches read while the present one is used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import psutil
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from emcache.training.readers import Example, Reader

_MEMORY_SHARE = 0.6
_READ_AHEAD = 4


class Residency(StrEnum):
    """Where examples wait between epochs."""

    AUTO = "auto"
    DEVICE = "device"
    RAM = "ram"
    DISK = "disk"


class Batch(NamedTuple):
    """Examples of one grid shape, on the computing device."""

    positions: tuple[int, ...]
    """Which examples these are."""
    inputs: Float[Tensor, "batch channel row col"]
    """Patch tokens, channels last in memory; or normalised slices."""
    masks: UInt8[Tensor, "batch height width"]
    """Labels: 0 background, 1 and up the classes, 255 ignored."""


@runtime_checkable
class Examples(Protocol):
    """Examples by their position: those of the first source, then those of the next."""

    def steps(self, order: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        """The examples of each step of ``order``, one batch for each grid shape in it."""


class _FromReader:
    def __init__(self, reader: Reader, device: torch.device) -> None:
        self._reader = reader
        self._device = device

    def _batches(self, examples: Sequence[tuple[int, Example]]) -> list[Batch]:
        """Group a step by grid shape: slices of several sizes then need no padding."""
        groups: dict[torch.Size, list[tuple[int, Example]]] = {}
        for position, item in examples:
            groups.setdefault(item.values.shape, []).append((position, item))
        return [self._batch(*zip(*group, strict=True)) for group in groups.values()]

    def _batch(self, positions: Sequence[int], examples: Sequence[Example]) -> Batch:
        values = torch.stack([item.values for item in examples]).to(self._device)
        masks = torch.stack([item.mask for item in examples]).to(self._device)
        return Batch(tuple(positions), self._reader.inputs(values), masks)


class ResidentExamples(_FromReader):
    """Examples read once and kept, on the device or in main memory."""

    def __init__(
        self, reader: Reader, device: torch.device, positions: Sequence[int], *, on_device: bool
    ) -> None:
        super().__init__(reader, device)
        self._kept: dict[int, Example] = {}
        # Decoding and decompressing release the interpreter's lock.
        with ThreadPoolExecutor(_READ_AHEAD, "read") as pool:
            for position, item in zip(positions, pool.map(reader.read, positions), strict=True):
                self._kept[position] = (
                    Example(*(tensor.to(device) for tensor in item)) if on_device else item
                )

    def steps(self, order: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        """The batches of each step."""
        for positions in order:
            yield self._batches([(position, self._kept[position]) for position in positions])


class StreamedExamples(_FromReader):
    """Examples read from disk in every epoch, a few steps ahead."""

    def steps(self, order: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        """The batches of each step."""

        def reader(positions: Sequence[int]) -> Callable[[], list[tuple[int, Example]]]:
            return lambda: [(position, self._reader.read(position)) for position in positions]

        waiting: deque[Future[list[tuple[int, Example]]]] = deque()
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
    reader: Reader, device: torch.device, residency: Residency, positions: Sequence[int]
) -> tuple[Examples, Residency]:
    """Examples of these positions, and the residency that ``auto`` chose.

    ``auto`` keeps examples on the device where they take less than 60 % of its free memory, else in
    main memory by the same rule, else streams them.
    """
    chosen = residency
    if residency is Residency.AUTO:
        needed = reader.bytes
        if device.type == "cuda" and needed < _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
            chosen = Residency.DEVICE
        elif needed < _MEMORY_SHARE * psutil.virtual_memory().available:
            chosen = Residency.RAM
        else:
            chosen = Residency.DISK
    if chosen is Residency.DISK:
        return StreamedExamples(reader, device), chosen
    on_device = chosen is Residency.DEVICE
    return ResidentExamples(reader, device, positions, on_device=on_device), chosen
