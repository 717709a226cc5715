"""Images and masks of a dataset while they are compared, on disk and cut into tiles.

The picture is divided into square tiles, coloured like a checkerboard: tiles of one colour make one
half of the evidence, and what is found in one half is tested in the other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int64, UInt8

from emcache.ahead import run_ahead
from emcache.auditing.pictures import CHANNELS, EDGE, image_channels, mask_shapes, small_size

AS_THEY_ARE = "as they are"
"""The orientation in which masks are declared."""

ORIENTATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    AS_THEY_ARE: lambda mask: mask,
    "flipped left-right": np.fliplr,
    "flipped up-down": np.flipud,
    "rotated by 180 degrees": lambda mask: np.rot90(mask, 2),
    "transposed": np.transpose,
    "rotated by 90 degrees": lambda mask: np.rot90(mask, 1),
    "rotated by 270 degrees": lambda mask: np.rot90(mask, 3),
    "transposed along the other diagonal": lambda mask: np.rot90(mask, 2).T,
}
"""What may have happened to all masks; the last four keep the shape of square masks only."""

_TILE, _SMALLEST_TILE = 16, 4
_TILES_ACROSS = 8
_SQUARE_ONLY = 4


class Tiling:
    """How pictures of one size are cut into the tiles of a checkerboard.

    Pixels are kept tile by tile: first all tiles of the first half, then those of the second.
    What a picture lacks to whole tiles is filled with zeros.
    """

    def __init__(self, height: int, width: int, edge: int = EDGE) -> None:
        self.shape = small_size(height, width, edge)
        shortest = min(self.shape)
        self.side = max(_SMALLEST_TILE, min(_TILE, shortest // _TILES_ACROSS))
        rows, columns = (-(-length // self.side) for length in self.shape)
        self._grid = rows, columns
        second = np.add.outer(np.arange(rows), np.arange(columns)).ravel() % 2
        self._order = np.argsort(second, kind="stable")
        self.count = rows * columns
        """Tiles."""
        self.pixels = self.count * self.side**2
        """Pixels of all tiles."""
        first = self.count - int(second.sum())
        self.halves = slice(0, first), slice(first, self.count)
        """The tiles of each half."""

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """A picture's pixels, tile by tile; flat."""
        rows, columns = self._grid
        side = self.side
        padded = np.zeros((rows * side, columns * side), picture.dtype)
        padded[: self.shape[0], : self.shape[1]] = picture
        tiles = padded.reshape(rows, side, columns, side).swapaxes(1, 2)
        return tiles.reshape(self.count, side * side)[self._order].ravel()

    def turns(self) -> dict[str, Int64[np.ndarray, " pixel"]]:
        """For each orientation that keeps the shape, where each pixel of a turned picture was.

        The place behind all pixels stands for what was filled up.
        """
        square = self.shape[0] == self.shape[1]
        names = tuple(ORIENTATIONS) if square else tuple(ORIENTATIONS)[:-_SQUARE_ONLY]
        places = np.arange(1, self.shape[0] * self.shape[1] + 1).reshape(self.shape)
        here = self.cut(places)
        # From a pixel's place in the picture to its place among the tiles.
        among_tiles = np.full(places.size + 1, self.pixels)
        among_tiles[here[here > 0]] = np.flatnonzero(here)
        return {name: among_tiles[self.cut(ORIENTATIONS[name](places))] for name in names}


_STEP = 1 / 1024
"""Channels are stored as whole multiples of this, which halves a file and is read fast."""
_MOST = np.iinfo(np.int16).max
_TILES_AT_ONCE = 8
_PAIRS_AT_ONCE = 512
_DENSE = 1 / 40
"""From this share of all pairs of some images and masks on, one product of them all is fastest."""
_THREADS = max(1, min(4, os.cpu_count() or 1))

_Sums = Float32[np.ndarray, "pair channel tile"]

Places = Sequence[int] | Int64[np.ndarray, " place"]

Pair = tuple[int, int, str]
"""An image, a mask, and how the mask is turned."""


_Read = Callable[[slice], Float32[np.ndarray, "slice pixel"]]
"""From a range of pixels to what images or masks have there."""


class Drawn(NamedTuple):
    """What is kept of a slice."""

    channels: Float32[np.ndarray, "channel pixel"]
    steps: Int16[np.ndarray, "channel pixel"]
    """The same in steps of equal size."""
    shapes: UInt8[np.ndarray, "2 byte"]
    """Of its mask, eight pixels a byte."""


class Scratch:
    """Slices of one size; a context manager that removes what it wrote.

    Args:
        height: Rows of the slices.
        width: Columns of the slices.
        edge: Longest edge of what is compared.
    """

    def __init__(self, height: int, width: int, edge: int = EDGE) -> None:
        self.tiling = Tiling(height, width, edge)
        self._edge = edge
        self._turns = self.tiling.turns()
        self._folder = tempfile.TemporaryDirectory(prefix="emcache-audit-")
        self._channels = Path(self._folder.name) / "channels"
        self._shapes: list[UInt8[np.ndarray, "2 byte"]] = []
        self._sum = np.zeros((len(CHANNELS), self.tiling.pixels))
        self._mapped: Int16[np.ndarray, "image channel pixel"] | None = None

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._mapped = None
        self._folder.cleanup()

    def draw(
        self,
        pixels: UInt8[np.ndarray, "height width"],
        foreground: Bool[np.ndarray, "height width"],
    ) -> Drawn:
        """What is kept of a slice and the mask declared for it; several threads may draw."""
        cut = self.tiling.cut
        channels = np.stack([cut(c) for c in image_channels(pixels, self._edge)])
        steps = channels / _STEP
        np.rint(steps, out=steps)
        steps = np.clip(steps, -_MOST, _MOST, out=steps).astype(np.int16)
        shapes = np.stack([cut(shape) for shape in mask_shapes(foreground, self._edge)])
        return Drawn(channels, steps, np.packbits(shapes, axis=-1))

    def add(self, drawn: Drawn) -> None:
        """Take the next slice."""
        with self._channels.open("ab") as stream:
            drawn.steps.tofile(stream)
        self._sum += drawn.channels
        self._shapes.append(drawn.shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def orientations(self) -> tuple[str, ...]:
        """Those that keep the masks' shape."""
        return tuple(self._turns)

    def scores(
        self, images: Places, masks: Places, orientation: str = AS_THEY_ARE
    ) -> Float64[np.ndarray, "half channel image mask"]:
        """Mean of each channel of every image under every mask, for each half of the tiles.

        The mean image of all slices is taken away first: a mask on which every image is strong
        fits none of them better for that.
        """
        scores = np.zeros((2, len(CHANNELS), len(images), len(masks)))
        with ThreadPoolExecutor(_THREADS, "compare") as pool:
            for channel in range(len(CHANNELS)):
                strengths = self._strengths(images, channel)
                shapes = self._shapes_of(masks, channel, orientation)
                for half, tiles in enumerate(self.tiling.halves):

                    def compare(
                        run: slice, strengths: _Read = strengths, shapes: _Read = shapes
                    ) -> tuple[np.ndarray, np.ndarray]:
                        pixels = self._pixels(run)
                        under = shapes(pixels)
                        return strengths(pixels) @ under.T, under.sum(-1)

                    sizes = np.zeros(len(masks))
                    works = (partial(compare, run) for run in _runs(tiles))
                    for found, some in run_ahead(pool, works, 2 * _THREADS):
                        scores[half, channel] += found
                        sizes += some
                    scores[half, channel] /= np.maximum(sizes, 1)
        return scores

    def typical(
        self, masks: Places, orientation: str = AS_THEY_ARE
    ) -> Float64[np.ndarray, "half channel mask"]:
        """Mean of each channel of the mean image under every mask, for each half of the tiles.

        This is what :meth:`scores` takes away.
        """
        mean = (self._sum / max(len(self), 1)).astype(np.float32)
        found = np.zeros((2, len(CHANNELS), len(masks)))
        for channel in range(len(CHANNELS)):
            shapes = self._shapes_of(masks, channel, orientation)
            for half, tiles in enumerate(self.tiling.halves):
                sizes = np.zeros(len(masks))
                for pixels in map(self._pixels, _runs(tiles)):
                    under = shapes(pixels)
                    found[half, channel] += under @ mean[channel, pixels]
                    sizes += under.sum(-1)
                found[half, channel] /= np.maximum(sizes, 1)
        return found

    def tile_sums(
        self, pairs: Sequence[Pair], centred: bool = True
    ) -> tuple[Float32[np.ndarray, "pair channel tile"], Float32[np.ndarray, "pair channel tile"]]:
        """Sums of each channel under a mask, tile by tile, and the pixels that they run over.

        Args:
            pairs: Image, mask and the mask's orientation.
            centred: Whether the mean image of all slices is taken away first.
        """
        sums = np.empty((len(pairs), len(CHANNELS), self.tiling.count), np.float32)
        sizes = np.empty_like(sums)
        side = self.tiling.side**2
        with ThreadPoolExecutor(_THREADS, "compare") as pool:
            for block, channel in product(_blocks(pairs), range(len(CHANNELS))):
                strengths = self._strengths(block.images, channel, centred)
                shapes = self._shapes_of(block.masks, channel, block.orientation)

                def compare(
                    run: slice,
                    block: _Block = block,
                    channel: int = channel,
                    strengths: _Read = strengths,
                    shapes: _Read = shapes,
                ) -> None:
                    given, under = (
                        read(self._pixels(run)).reshape(-1, run.stop - run.start, side)
                        for read in (strengths, shapes)
                    )
                    if block.is_dense:
                        every = given.swapaxes(0, 1) @ under.transpose(1, 2, 0)
                        found = every[:, block.rows, block.columns].T
                    else:
                        found = np.einsum("ktp,ktp->kt", given, under)
                    sums[block.places, channel, run] = found
                    sizes[block.places, channel, run] = under.sum(-1)[block.columns]

                for _ in pool.map(compare, _runs(slice(0, self.tiling.count))):
                    pass
        return sums, sizes

    def _pixels(self, tiles: slice) -> slice:
        return slice(tiles.start * self.tiling.side**2, tiles.stop * self.tiling.side**2)

    def _stored(self) -> Int16[np.ndarray, "image channel pixel"]:
        shape = (len(self), len(CHANNELS), self.tiling.pixels)
        if self._mapped is None or self._mapped.shape != shape:
            self._mapped = np.memmap(self._channels, np.int16, "r", shape=shape)
        return self._mapped

    def _strengths(self, images: Places, channel: int, centred: bool = True) -> _Read:
        """What reads a channel of some images, less the mean image."""
        stored = self._stored()[:, channel]
        mean = (self._sum[channel] / max(len(self), 1) * centred).astype(np.float32)
        chosen = np.asarray(images)

        def read(pixels: slice) -> Float32[np.ndarray, "image pixel"]:
            values: Float32[np.ndarray, "image pixel"] = stored[chosen, pixels] * np.float32(_STEP)
            values -= mean[pixels]
            return values

        return read

    def _shapes_of(self, masks: Places, channel: int, orientation: str) -> _Read:
        """What reads the outlines or the insides of some masks."""
        packed = np.stack([self._shapes[int(place)][channel] for place in masks])
        if orientation == AS_THEY_ARE:

            def read(pixels: slice) -> Float32[np.ndarray, "mask pixel"]:
                first, last = pixels.start // 8, -(-pixels.stop // 8)
                bits = np.unpackbits(packed[:, first:last], axis=-1)
                chosen: UInt8[np.ndarray, "mask pixel"] = bits[
                    :, pixels.start - 8 * first : pixels.stop - 8 * first
                ]
                return chosen.astype(np.float32)

            return read

        turn = self._turns[orientation]
        upright = np.unpackbits(packed, axis=-1, count=self.tiling.pixels)
        filled = np.concatenate([upright, np.zeros((len(upright), 1), np.uint8)], axis=1)

        def read_turned(pixels: slice) -> Float32[np.ndarray, "mask pixel"]:
            # Taking is several times as fast as indexing.
            chosen: UInt8[np.ndarray, "mask pixel"] = np.take(filled, turn[pixels], axis=1)
            return chosen.astype(np.float32)

        return read_turned


class _Block(NamedTuple):
    """Pairs that are compared together."""

    places: Int64[np.ndarray, " pair"]
    """Of the pairs among all."""
    images: Int64[np.ndarray, " image"]
    masks: Int64[np.ndarray, " mask"]
    rows: Int64[np.ndarray, " pair"]
    """Of each pair's image among these."""
    columns: Int64[np.ndarray, " pair"]
    """Of each pair's mask among these."""
    orientation: str
    is_dense: bool
    """Whether every image is compared with every mask; otherwise each with the one beside it."""


def _blocks(pairs: Sequence[Pair]) -> Iterator[_Block]:
    """Pairs by orientation, and where they are few of those that could be, some at a time."""
    for turn in sorted({turn for _, _, turn in pairs}):
        own = [place for place, (_, _, other) in enumerate(pairs) if other == turn]
        places = np.array(own)
        images, masks = np.array([pairs[place][:2] for place in own]).T
        some_images, rows = np.unique(images, return_inverse=True)
        some_masks, columns = np.unique(masks, return_inverse=True)
        if len(places) >= _DENSE * len(some_images) * len(some_masks):
            yield _Block(places, some_images, some_masks, rows, columns, turn, True)
            continue
        for start in range(0, len(places), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            each = np.arange(len(places[some]))
            yield _Block(places[some], images[some], masks[some], each, each, turn, False)


def _runs(tiles: slice) -> Iterator[slice]:
    """Some tiles, a few at a time."""
    for start in range(tiles.start, tiles.stop, _TILES_AT_ONCE):
        yield slice(start, min(start + _TILES_AT_ONCE, tiles.stop))
