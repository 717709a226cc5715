"""What is compared: two channels of an image, and the outline and inside of a mask, in tiles.

A mask's outline should lie on strong gradients (or, for some labels, on weak ones), and its inside
on tissue of one brightness. Images are scaled down and standardised, so that neither size nor
contrast decides. The picture is divided into square tiles, coloured like a checkerboard: tiles of
one colour make one half of the evidence, and what is found in one half is tested in the other.
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
import scipy  # its parts are imported where they are first used
from jaxtyping import Bool, Float32, Float64, Int16, Int64, UInt8
from PIL import Image

from emcache.ahead import run_ahead

EDGE = 256
"""Longest edge of what is compared, in pixels."""

EDGE_OF_MANY = 128
"""The same where there are so many slices that they would fill a disk."""

CHANNELS = ("gradient on the outline", "brightness inside")
"""What of an image is looked at under a mask."""

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

_FINE, _COARSE = 1.0, 2.0
_SURROUNDINGS = 65
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


def small_size(height: int, width: int, edge: int = EDGE) -> tuple[int, int]:
    """Rows and columns at which images and masks of this size are compared."""
    scale = min(1.0, edge / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def image_channels(
    pixels: UInt8[np.ndarray, "height width"], edge: int = EDGE
) -> Float32[np.ndarray, "2 row col"]:
    """Gradient magnitude, and brightness against the surroundings, of a standardised image.

    Each has mean 0 and standard deviation 1. Flat areas, as black borders and holes, count for
    nothing: both are 0 there, and so is a constant image.
    """
    small = _shrunk(pixels, edge).astype(np.float32)
    if min(small.shape) < 2:
        return np.zeros((len(CHANNELS), *small.shape), np.float32)
    textured = _textured(small)
    small = _standardised(small, textured)
    fine = scipy.ndimage.gaussian_filter(small, _FINE)
    gradient = np.hypot(*np.gradient(fine))
    # Smoothing what is smooth already: the variances add up.
    coarse = scipy.ndimage.gaussian_filter(fine, np.sqrt(_COARSE**2 - _FINE**2))
    # Light that falls off, and structures that are larger than masks, tell slices apart by
    # themselves, and in both halves.
    weights = scipy.ndimage.uniform_filter(textured.astype(np.float32), _SURROUNDINGS)
    around = scipy.ndimage.uniform_filter(small, _SURROUNDINGS) / np.maximum(weights, 1e-3)
    # A flat area's edge is not an outline.
    inside = textured
    if not textured.all():
        inside = scipy.ndimage.binary_erosion(textured, iterations=2, border_value=1)
    return np.stack([_standardised(gradient, inside), _standardised(coarse - around, inside)])


def _textured(small: Float32[np.ndarray, "row col"]) -> Bool[np.ndarray, "row col"]:
    """Where an image is not flat, but for small gaps."""
    spread = _of_neighbours(np.maximum, small) - _of_neighbours(np.minimum, small)
    flat = spread <= min(1.0, 0.05 * float(small.std()))
    if flat.any():
        flat = scipy.ndimage.binary_opening(flat, iterations=2)
    textured: Bool[np.ndarray, "row col"] = ~flat
    return textured


def _of_neighbours(
    extreme: np.ufunc, small: Float32[np.ndarray, "row col"]
) -> Float32[np.ndarray, "row col"]:
    """Maximum or minimum of each pixel and its eight neighbours.

    These are scipy's filters of three pixels, which take fifteen times as long.
    """
    wide = np.pad(small, 1, mode="edge")
    rows = extreme(extreme(wide[:-2], wide[1:-1]), wide[2:])
    found: Float32[np.ndarray, "row col"] = extreme(
        extreme(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:]
    )
    return found


def mask_shapes(
    foreground: Bool[np.ndarray, "height width"], edge: int = EDGE
) -> Bool[np.ndarray, "2 row col"]:
    """Outline (two pixels wide) and inside of a mask: what :func:`image_channels` meet."""
    small = _shrunk(foreground.astype(np.uint8) * 255, edge) >= 128
    # Where a pixel and its neighbour differ, both are on the outline.
    outline = np.zeros_like(small)
    for axis in (0, 1):
        ahead, behind = np.moveaxis(outline, axis, 0)[1:], np.moveaxis(outline, axis, 0)[:-1]
        turned = np.moveaxis(small, axis, 0)
        changes = turned[1:] != turned[:-1]
        ahead |= changes
        behind |= changes
    return np.stack([outline, small])


def _shrunk(pixels: UInt8[np.ndarray, "height width"], edge: int) -> UInt8[np.ndarray, "row col"]:
    height, width = pixels.shape
    rows, columns = small_size(height, width, edge)
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BOX))


def _standardised(
    values: Float32[np.ndarray, "row col"], counted: Bool[np.ndarray, "row col"]
) -> Float32[np.ndarray, "row col"]:
    """With mean 0 and standard deviation 1 where pixels count, and 0 elsewhere."""
    chosen = values[counted]
    spread = float(chosen.std()) if chosen.size else 0.0
    if spread < 1e-6:
        return np.zeros_like(values)
    standardised: Float32[np.ndarray, "row col"] = np.where(
        counted, (values - chosen.mean()) / np.float32(spread), np.float32(0)
    ).astype(np.float32)
    return standardised


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
