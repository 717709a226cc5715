"""Slices with outlines drawn on them."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import binary_erosion

# Both told apart by every common kind of colour blindness, and from grey.
TRUE_COLOUR = (0, 158, 255)
PREDICTED_COLOUR = (255, 140, 0)

_LINE = 2


def outline_overlay(
    image: UInt8[np.ndarray, "row col"],
    true: UInt8[np.ndarray, "mask_row mask_col"] | None,
    predicted: UInt8[np.ndarray, "mask_row mask_col"] | None,
) -> UInt8[np.ndarray, "row col 3"]:
    """A grey slice with the true outline in blue and the predicted one in orange.

    Args:
        image: The slice, as stored.
        true: True mask at any size, non-zero is foreground, resized to the slice; None where it is
            not known.
        predicted: Predicted mask, of the same size as a true one, likewise.
    """
    picture = np.repeat(image[..., None], 3, axis=2)
    for mask, colour in ((true, TRUE_COLOUR), (predicted, PREDICTED_COLOUR)):
        if mask is not None:
            picture[_outline(mask, image.shape)] = colour
    return picture


def _outline(mask: UInt8[np.ndarray, "mask_row mask_col"], shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = shape
    full = Image.fromarray((mask > 0).astype(np.uint8)).resize(
        (columns, rows), Image.Resampling.NEAREST
    )
    inside = np.asarray(full) > 0
    edge: np.ndarray = inside & ~binary_erosion(inside, iterations=_LINE, border_value=1)
    return edge
