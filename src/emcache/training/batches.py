"""Where training examples come from, tokens or the slices themselves, and where they wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import psutil
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from emcache.cache.alignment import Transform
from emcache.cache.encoding import Basis
from emcache.cache.feature_set import FeatureSet
from emcache.cache.inputs import normalise, training_image, training_mask
from emcache.cache.labels import LabelSet
from emcache.cache.moments import Moments, ensure_moments
from emcache.cache.recipe import Grid
from emcache.data.classes import ClassRule
from emcache.data.dataset import Slice
from emcache.data.greys import GreyRule
from emcache.models.transfers import stack_on


class Example(NamedTuple):
    """One slice with its mask, as it waits between epochs."""

    values: Shaped[Tensor, "*shape"]
    """Tokens (row, col, channel), 8-bit pixels (row, col), or the output of a block (token,
    channel)."""
    mask: UInt8[Tensor, "height width"]
    """Labels: 0 background, 1 and up the classes, 255 ignored."""
    pixels: UInt8[Tensor, "image_row image_col"] | None = None
    """The slice itself beside its tokens, for a head that takes both."""

    def to(self, device: torch.device) -> Example:
        """The same on another device."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        return Example(self.values.to(device), self.mask.to(device), pixels)


@runtime_checkable
class Reader(Protocol):
    """Examples by their position: those of the first source, then those of the next."""

    domains: Sequence[Moments]
    """What each source's tokens were aligned by; nothing where they are as they were made."""

    def read(self, position: int) -> Example:
        """One example, from disk."""

    def inputs(self, values: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """What the model takes, from the values of examples of one shape."""

    @property
    def bytes(self) -> int:
        """Memory that all examples take."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Tokens of one source with their labels."""

    feature_set: FeatureSet
    labels: LabelSet
    deeper: Sequence[FeatureSet] = ()
    """Other layers of the same slices; their channels follow."""

    @property
    def bytes(self) -> int:
        """Memory that tokens and masks take."""
        return sum(_resident_bytes(layer) for layer in (self.feature_set, *self.deeper))

    def tokens(self, place: int) -> Float[np.ndarray, "row col channel"]:
        """Tokens of one slice, of all layers."""
        first = self.feature_set.tokens(place)
        if not self.deeper:
            return first
        return np.concatenate([first, *(layer.tokens(place) for layer in self.deeper)], axis=-1)

    def moments(self, name: str, places: Sequence[int]) -> Moments:
        """Of the tokens of some slices.

        Raises:
            StoreError: There are no such slices, or a token is not finite.
        """
        layers = (self.feature_set, *self.deeper)
        return ensure_moments(
            name,
            self.feature_set,
            [layer.manifest["recipe_sha256"] for layer in layers],
            [self.feature_set.slices[place] for place in places],
            lambda position: self.tokens(places[position]),
        )


class TokenReader:
    """Patch tokens from feature sets: for heads alone.

    Args:
        sources: Tokens and labels of each source.
        transforms: How the tokens of each source are aligned.
        domains: What these were fitted to.
        pixels: Reads the slices beside their tokens, for a head that takes both.
    """

    def __init__(
        self,
        sources: Sequence[LabelledFeatures],
        transforms: Sequence[Transform | None] | None = None,
        domains: Sequence[Moments] = (),
        pixels: PixelReader | None = None,
    ) -> None:
        self._sources = sources
        self._pixels = pixels
        self._places = [
            (source, transform, local)
            for source, transform in zip(sources, transforms or [None] * len(sources), strict=True)
            for local in range(len(source.labels.slices))
        ]
        self.domains = domains
        """What each source's tokens were aligned by; nothing where they are as they were made."""

    @property
    def basis(self) -> Basis | None:
        """Of the principal components that stand for the tokens; all sources have the same."""
        return self._sources[0].feature_set.encoding.basis

    def deepest(self, position: int) -> Float[np.ndarray, "row col channel"]:
        """Tokens of one slice as they were made, before any alignment: those of the last layer."""
        source, _, local = self._places[position]
        return [source.feature_set, *source.deeper][-1].tokens(local)

    def read(self, position: int) -> Example:
        """Tokens and mask of one slice."""
        source, transform, local = self._places[position]
        stored = source.tokens(local)
        # ascontiguousarray also makes a read-only view writable, which torch asks for.
        tokens = np.ascontiguousarray(stored if transform is None else transform(stored))
        mask = np.ascontiguousarray(source.labels.mask(local))
        pixels = None if self._pixels is None else self._pixels.read_image(position)
        return Example(torch.from_numpy(tokens), torch.from_numpy(mask), pixels)

    def inputs(
        self, values: Shaped[Tensor, "batch row col *channel"]
    ) -> Float[Tensor, "batch depth row col"]:
        """Tokens in float32, channels last in memory and seen as channels first."""
        return values.float().permute(0, 3, 1, 2)

    @property
    def bytes(self) -> int:
        """Of tokens and masks, and of pixels where they are read."""
        pixels = 0 if self._pixels is None else self._pixels.bytes // 2
        return pixels + sum(source.bytes for source in self._sources)


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

    domains: Sequence[Moments] = ()
    """Pixels are not aligned."""

    def __init__(
        self, slices: Sequence[SizedSlice], patch: int, greys: GreyRule | None = None
    ) -> None:
        self._slices = slices
        self._patch = patch
        self._greys = greys or GreyRule()

    def read(self, position: int) -> Example:
        """Pixels and mask of one slice."""
        item = self._slices[position]
        mask = training_mask(item.slice, item.classes, self._size(item))
        return Example(self.read_image(position), torch.from_numpy(mask))

    def read_image(self, position: int) -> UInt8[Tensor, "row col"]:
        """Pixels of one slice."""
        item = self._slices[position]
        return torch.from_numpy(training_image(item.slice, self._size(item), self._greys))

    def _size(self, item: SizedSlice) -> tuple[int, int]:
        return item.grid[0] * self._patch, item.grid[1] * self._patch

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
    per_token = facts["dim"] * feature_set.encoding.read_type.itemsize + facts["patch"] ** 2
    return sum(int(np.prod(item.grid)) * per_token for item in feature_set.slices)


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
    inputs: Float[Tensor, "batch ..."]
    """Patch tokens (batch, channel, row, col), channels last in memory; normalised slices; or the
    output of a block (batch, token, channel)."""
    masks: UInt8[Tensor, "batch height width"]
    """Labels: 0 background, 1 and up the classes, 255 ignored."""
    images: Float[Tensor, "batch 3 image_row image_col"] | None = None
    """Normalised slices beside their tokens, for a head that takes both."""
    domain: int = 0
    """Whose batch norm statistics count, for a head that keeps them for each domain."""


DomainOf = Callable[[int], int]
"""From an example's position to its domain."""


@runtime_checkable
class Examples(Protocol):
    """Examples by their position: those of the first source, then those of the next."""

    def steps(self, order: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        """The examples of each step, one batch for each grid shape and domain in it."""


class _FromReader:
    def __init__(self, reader: Reader, device: torch.device, domain_of: DomainOf) -> None:
        self._reader = reader
        self._device = device
        self._domain_of = domain_of

    def _batches(self, examples: Sequence[tuple[int, Example]]) -> list[Batch]:
        """Group a step by grid shape, so that slices of several sizes need no padding."""
        groups: dict[tuple[int, torch.Size], list[tuple[int, Example]]] = {}
        for position, item in examples:
            place = (self._domain_of(position), item.values.shape)
            groups.setdefault(place, []).append((position, item))
        return [
            self._batch(domain, *zip(*group, strict=True)) for (domain, _), group in groups.items()
        ]

    def _batch(self, domain: int, positions: Sequence[int], examples: Sequence[Example]) -> Batch:
        values = stack_on([item.values for item in examples], self._device)
        masks = stack_on([item.mask for item in examples], self._device)
        pixels = [item.pixels for item in examples if item.pixels is not None]
        images = normalise(stack_on(pixels, self._device)) if pixels else None
        return Batch(tuple(positions), self._reader.inputs(values), masks, images, domain)


class ResidentExamples(_FromReader):
    """Examples read once and kept, on the device or in main memory."""

    def __init__(
        self,
        reader: Reader,
        device: torch.device,
        positions: Sequence[int],
        domain_of: DomainOf,
        *,
        on_device: bool,
    ) -> None:
        super().__init__(reader, device, domain_of)
        self._kept: dict[int, Example] = {}
        # Decoding and decompressing release the interpreter's lock.
        with ThreadPoolExecutor(_READ_AHEAD, "read") as pool:
            for position, item in zip(positions, pool.map(reader.read, positions), strict=True):
                self._kept[position] = item.to(device) if on_device else item

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
        # Where the processor computes, it has no time for more of them.
        readers = 1 if self._device.type == "cpu" else _READ_AHEAD
        with ThreadPoolExecutor(readers, "read") as pool:
            try:
                for positions in order:
                    waiting.append(pool.submit(reader(positions)))
                    if len(waiting) > _READ_AHEAD:
                        yield self._batches(waiting.popleft().result())
                while waiting:
                    yield self._batches(waiting.popleft().result())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _one_domain(_: int) -> int:
    return 0


def open_examples(
    reader: Reader,
    device: torch.device,
    residency: Residency,
    positions: Sequence[int],
    domain_of: DomainOf = _one_domain,
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
        return StreamedExamples(reader, device, domain_of), chosen
    on_device = chosen is Residency.DEVICE
    return ResidentExamples(reader, device, positions, domain_of, on_device=on_device), chosen
