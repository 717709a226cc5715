"""Images and masks of a dataset while they are compared, on disk and cut into tiles.

The picture is divided into square tiles, coloured like a checkerboard: tiles of one colour make one
half of the evidence, and what is found in one half is tested in the other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import groupby
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
_BLOCK_PIXELS = 1 << 22
_MASK_PIXELS = 1 << 24
"""Of masks that are kept while images are compared with them: 128 MiB."""
_THREADS = max(1, min(4, os.cpu_count() or 1))
"""Each holds a block of images."""

_Tiles = Float32[np.ndarray, "shape tile pixel"]
_Sizes = Float32[np.ndarray, "shape tile"]
_Sums = Float32[np.ndarray, "pair shape tile"]
_Shapes = Float32[np.ndarray, "mask shape pixel"]
_ShapeSizes = Float32[np.ndarray, "half mask shape"]

Places = Sequence[int] | Int64[np.ndarray, " place"]

Pair = tuple[int, int, str]
"""An image, a mask, and how the mask is turned."""


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
        self._block = max(1, _BLOCK_PIXELS // self.tiling.pixels)
        self._turns = self.tiling.turns()
        self._folder = tempfile.TemporaryDirectory(prefix="emcache-audit-")
        self._channels = Path(self._folder.name) / "channels"
        self._shapes: list[UInt8[np.ndarray, "2 byte"]] = []
        self._sum = np.zeros((len(CHANNELS), self.tiling.pixels))

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def draw(
        self,
        pixels: UInt8[np.ndarray, "height width"],
        foreground: Bool[np.ndarray, "height width"],
    ) -> Drawn:
        """What is kept of a slice and the mask declared for it; several threads may draw."""
        cut = self.tiling.cut
        channels = np.stack([cut(c) for c in image_channels(pixels, self._edge)])
        steps = np.clip(np.rint(channels / _STEP), -_MOST, _MOST).astype(np.int16)
        shapes = np.stack([cut(shape) for shape in mask_shapes(foreground, self._edge)])
        return Drawn(channels, steps, np.packbits(shapes, axis=-1))

    def add(self, drawn: Drawn) -> None:
        """Take the next slice."""
        with self._channels.open("ab") as stream:
            stream.write(drawn.steps.tobytes())
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
        side = self.tiling.side**2
        halves = [slice(tiles.start * side, tiles.stop * side) for tiles in self.tiling.halves]
        read = self._images()

        def compare(columns: slice, shapes: _Shapes, sizes: _ShapeSizes, start: int) -> None:
            rows = slice(start, start + self._block)
            channels = read(images[rows])
            for half, pixels in enumerate(halves):
                for channel in range(len(CHANNELS)):
                    found = channels[:, channel, pixels] @ shapes[:, channel, pixels].T
                    scores[half, channel, rows, columns] = found / sizes[half, :, channel]

        with ThreadPoolExecutor(_THREADS, "compare") as pool:
            for columns, shapes in self._masks(masks, orientation):
                sizes = np.stack([np.maximum(shapes[..., half].sum(-1), 1) for half in halves])
                starts = range(0, len(images), self._block)
                for _ in pool.map(partial(compare, columns, shapes, sizes), starts):
                    pass
        return scores

    def typical(
        self, masks: Places, orientation: str = AS_THEY_ARE
    ) -> Float64[np.ndarray, "half channel mask"]:
        """Mean of each channel of the mean image under every mask, for each half of the tiles.

        This is what :meth:`scores` takes away.
        """
        mean = self._sum / max(len(self), 1)
        found = np.zeros((2, len(CHANNELS), len(masks)))
        side = self.tiling.side**2
        for columns, shapes in self._masks(masks, orientation):
            for half, tiles in enumerate(self.tiling.halves):
                pixels = slice(tiles.start * side, tiles.stop * side)
                weights = shapes[..., pixels]
                sums = np.einsum("mcp,cp->cm", weights, mean[:, pixels])
                found[half, :, columns] = sums / np.maximum(weights.sum(-1), 1).T
        return found

    def tile_sums(
        self, pairs: Sequence[Pair], centred: bool = True
    ) -> Iterator[
        tuple[Float32[np.ndarray, "pair channel tile"], Float32[np.ndarray, "pair channel tile"]]
    ]:
        """Sums of each channel under a mask, tile by tile, and the pixels that they run over.

        Args:
            pairs: Image, mask and the mask's orientation; those of one image stand together.
            centred: Whether the mean image of all slices is taken away first.

        Yields:
            For each run of pairs of one image: the sums, and the numbers of pixels.
        """
        tiles = (len(CHANNELS), self.tiling.count, self.tiling.side**2)
        images = self._images(centred)

        # Orders that are compared have much the same masks for neighbouring images.
        @lru_cache(maxsize=max(1, _MASK_PIXELS // self.tiling.pixels))
        def mask(place: int, turn: str) -> tuple[_Tiles, _Sizes]:
            shapes = self.shape(place, turn).reshape(tiles)
            return shapes, shapes.sum(-1)

        def compare(image: int, others: Sequence[Pair]) -> tuple[_Sums, _Sums]:
            channels = images([image])[0].reshape(tiles)
            sums = np.empty((len(others), *tiles[:2]), np.float32)
            sizes = np.empty_like(sums)
            for place, (_, other, turn) in enumerate(others):
                shapes, sizes[place] = mask(other, turn)
                np.einsum("ctp,ctp->ct", channels, shapes, out=sums[place])
            return sums, sizes

        works = (
            partial(compare, image, list(others))
            for image, others in groupby(pairs, key=lambda pair: pair[0])
        )
        with ThreadPoolExecutor(_THREADS, "compare") as pool:
            yield from run_ahead(pool, works, 2 * _THREADS)

    def _images(
        self, centred: bool = True
    ) -> Callable[[Places], Float32[np.ndarray, "image channel pixel"]]:
        """From some images to their channels, less the mean image."""
        shape = (len(CHANNELS), self.tiling.pixels)
        stored = np.memmap(self._channels, np.int16, "r", shape=(len(self), *shape))
        mean = (self._sum / max(len(self), 1) * centred).astype(np.float32)

        def images(places: Places) -> Float32[np.ndarray, "image channel pixel"]:
            channels = np.multiply(stored[list(places)], _STEP, dtype=np.float32)
            channels -= mean
            return channels

        return images

    def _masks(self, places: Places, orientation: str) -> Iterator[tuple[slice, _Shapes]]:
        """Outlines and insides of some masks, a few at a time."""
        for start in range(0, len(places), self._block):
            chosen = list(places[start : start + self._block])
            shapes = np.stack([self.shape(int(place), orientation) for place in chosen])
            yield slice(start, start + len(chosen)), shapes

    def shape(
        self, place: int, orientation: str = AS_THEY_ARE
    ) -> Float32[np.ndarray, "shape pixel"]:
        """Outline and inside of a mask, tile by tile."""
        bits = np.unpackbits(self._shapes[place], axis=-1, count=self.tiling.pixels)
        if orientation != AS_THEY_ARE:
            filled = np.concatenate([bits, np.zeros((len(bits), 1), np.uint8)], axis=1)
            bits = filled[:, self._turns[orientation]]
        return bits.astype(np.float32)
