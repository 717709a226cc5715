"""What is compared: two channels of an image, and the outline and inside of a mask.

A mask's outline should lie on strong gradients (or, for some labels, on weak ones), and its inside
on tissue of one brightness. Images are scaled down and standardised, so that neither size nor
contrast decides.
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported where they are first used
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

EDGE = 256
"""Longest edge of what is compared, in pixels."""

EDGE_OF_MANY = 128
"""The same where there are so many slices that they would fill a disk."""

CHANNELS = ("gradient on the outline", "brightness inside")
"""What of an image is looked at under a mask."""

_FINE, _COARSE = 1.0, 2.0
_SURROUNDINGS = 65


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
    around = scipy.ndimage.uniform_filter(small, _SURROUNDINGS)
    # A flat area's edge is not an outline.
    inside = textured
    if not textured.all():
        weights = scipy.ndimage.uniform_filter(textured.astype(np.float32), _SURROUNDINGS)
        around /= np.maximum(weights, 1e-3)
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
    picture = Image.fromarray(pixels)
    if height % rows == 0 and width % columns == 0:
        # The same means, rounded once, in a fourth of the time.
        return np.asarray(picture.reduce((width // columns, height // rows)))
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BOX))


def _standardised(
    values: Float32[np.ndarray, "row col"], counted: Bool[np.ndarray, "row col"]
) -> Float32[np.ndarray, "row col"]:
    """With mean 0 and standard deviation 1 where pixels count, and 0 elsewhere."""
    every = bool(counted.all())
    chosen = values.ravel() if every else values[counted]
    spread = float(chosen.std()) if chosen.size else 0.0
    if spread < 1e-6:
        return np.zeros_like(values)
    standardised: Float32[np.ndarray, "row col"] = (values - chosen.mean()) / np.float32(spread)
    if not every:
        standardised[~counted] = 0
    return standardised
