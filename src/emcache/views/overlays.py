"""Masks, predictions and mistakes drawn over a slice, in colours that the colour-blind can tell."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from emcache.data.classes import IGNORED

MASK_COLOUR = (86, 180, 233)
PREDICTION_COLOUR = (230, 159, 0)
MISTAKES = {
    "right": (0, 158, 115),
    "false positive": (230, 159, 0),
    "false negative": (204, 121, 167),
}
"""Colours of foreground that was found, that is none, and that was missed (Okabe and Ito)."""

_OPACITY = 0.6


def as_colour(image: UInt8[np.ndarray, "row col"]) -> UInt8[np.ndarray, "row col 3"]:
    """A grey slice as a picture of three channels."""
    picture: UInt8[np.ndarray, "row col 3"] = np.repeat(image[..., None], 3, axis=2)
    return picture


def filled(
    image: UInt8[np.ndarray, "row col"],
    labels: UInt8[np.ndarray, "row col"],
    colour: tuple[int, int, int],
) -> UInt8[np.ndarray, "row col 3"]:
    """The slice with its foreground in one colour.

    Args:
        image: The slice.
        labels: 0 background, 255 ignored, anything else foreground.
        colour: Red, green and blue.
    """
    return _painted(as_colour(image), (labels != 0) & (labels != IGNORED), colour)


def mistakes(
    image: UInt8[np.ndarray, "row col"],
    true: UInt8[np.ndarray, "row col"],
    predicted: UInt8[np.ndarray, "row col"],
) -> UInt8[np.ndarray, "row col 3"]:
    """The slice with what a prediction got right, found too much, and missed.

    Args:
        image: The slice.
        true: Labels of its mask: 0 background, 255 ignored, anything else foreground.
        predicted: Labels of the prediction; anything but 0 is foreground.
    """
    seen, truly, found = true != IGNORED, true != 0, predicted != 0
    picture = as_colour(image)
    where = (truly & found, ~truly & found, truly & ~found)
    for colour, marked in zip(MISTAKES.values(), where, strict=True):
        picture = _painted(picture, marked & seen, colour)
    return picture


def _painted(
    picture: UInt8[np.ndarray, "row col 3"],
    where: np.ndarray,
    colour: tuple[int, int, int],
) -> UInt8[np.ndarray, "row col 3"]:
    mixed = picture.copy()
    mixed[where] = np.rint(_OPACITY * np.array(colour) + (1 - _OPACITY) * picture[where])
    return mixed
