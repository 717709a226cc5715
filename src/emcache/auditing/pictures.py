"""What is compared: two channels of an image, and the outline and inside of a mask, in tiles.

A mask's outline should lie on strong gradients (or, for some labels, on weak ones), and its inside
on tissue of one brightness. Images are scaled down and standardised, so that neither size nor
contrast decides. The picture is divided into square tiles, coloured like a checkerboard: tiles of
one colour make one half of the evidence, and what is found in one half is tested in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image
from scipy import ndimage

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
    fine = ndimage.gaussian_filter(small, _FINE)
    gradient = np.hypot(*np.gradient(fine))
    # Smoothing what is smooth already: the variances add up.
    coarse = ndimage.gaussian_filter(fine, np.sqrt(_COARSE**2 - _FINE**2))
    # Light that falls off, and structures that are larger than masks, tell slices apart by
    # themselves, and in both halves.
    weights = ndimage.uniform_filter(textured.astype(np.float32), _SURROUNDINGS)
    around = ndimage.uniform_filter(small, _SURROUNDINGS) / np.maximum(weights, 1e-3)
    # A flat area's edge is not an outline.
    inside = textured
    if not textured.all():
        inside = ndimage.binary_erosion(textured, iterations=2, border_value=1)
    return np.stack([_standardised(gradient, inside), _standardised(coarse - around, inside)])


def _textured(small: Float32[np.ndarray, "row col"]) -> Bool[np.ndarray, "row col"]:
    """Where an image is not flat, but for small gaps."""
    spread = ndimage.maximum_filter(small, 3) - ndimage.minimum_filter(small, 3)
    flat = spread <= min(1.0, 0.05 * float(small.std()))
    if flat.any():
        flat = ndimage.binary_opening(flat, iterations=2)
    textured: Bool[np.ndarray, "row col"] = ~flat
    return textured


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
