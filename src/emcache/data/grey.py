"""One scale of greys for a dataset whose slices have more than 8 bits.

The same two values become black and white in every slice. A scale of each slice's own would change
from slice to slice with what the slice shows, and between microscopes it would look like a domain
gap, or hide one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped, UInt8

from emcache.errors import ImageError, UsageError

DEFAULT_PERCENTILES = (0.1, 99.9)
"""Share of the dataset's pixels, in percent, below black and below white."""

_BINS = 1 << 16
_FARTHEST = 1e300


@dataclass(frozen=True, slots=True)
class GreyWindow:
    """The values that become 0 and 255; those between go linearly, those outside are clipped."""

    black: float
    white: float

    def __post_init__(self) -> None:
        # The scale must be a number too: not of values that are too far apart, or too close.
        if not (self.black < self.white and 0 < self.white - self.black < _FARTHEST) or not (
            255 / (self.white - self.black) < _FARTHEST
        ):
            raise UsageError(
                f"a grey window from {self.black:g} to {self.white:g} is empty; expected two "
                f"numbers, the lower first.",
                subject=(self.black, self.white),
            )

    def __str__(self) -> str:
        return f"{self.black:g} to {self.white:g}"

    def apply(
        self, values: Shaped[np.ndarray, "row col"], name: str
    ) -> UInt8[np.ndarray, "row col"]:
        """Scale one plane to 8 bits.

        Args:
            values: Integers or floats.
            name: What to call the plane.

        Raises:
            ImageError: Values that are not finite, or no real numbers.
        """
        numbers = _real(values, name)
        scaled = (numbers - self.black) * (255 / (self.white - self.black))
        grey: UInt8[np.ndarray, "row col"] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        return grey


def find_window(
    read: Callable[[], Iterable[tuple[str, Shaped[np.ndarray, "row col"]]]],
    percentiles: tuple[float, float],
) -> tuple[GreyWindow, str]:
    """The window of a dataset, and the rule in words.

    Whole numbers that all lie within 0..255 are 8-bit data in a wider type and stand as they are.
    Else the window goes from one percentile of all the dataset's values to another, each found to
    1/65536 of the range of the values (exactly for 16 bits).

    Args:
        read: Gives names and values of every slice; called twice, one slice is held at a time.
        percentiles: Lower and upper, 0 to 100.

    Raises:
        ImageError: Values that are not finite, or all the same.
        UsageError: Percentiles that are not range.
    """
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise UsageError(
            f"percentiles {percentiles[0]:g},{percentiles[1]:g} are not range; expected two from 0 "
            f"to 100, the lower first.",
            subject=percentiles,
        )
    low, high, count, whole = np.inf, -np.inf, 0, True
    for name, values in read():
        numbers = _real(values, name)
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
        whole = whole and values.dtype.kind in "iu"
        count += 1
    if high - low >= _FARTHEST:
        raise ImageError(
            f"values go from {low:g} to {high:g}; expected an image: check the data.",
            subject=(low, high),
        )
    if whole and low >= 0 and high <= 255:
        return GreyWindow(0.0, 255.0), "whole numbers within 0 to 255, taken as they are"
    if low == high:
        raise ImageError(
            f"all values of {count} slices are {low:g}; expected an image: check the data.",
            subject=low,
        )
    exact = whole and high - low < _BINS
    edges = (low, low + _BINS) if exact else (low, float(np.nextafter(high, np.inf)))
    histogram = np.zeros(_BINS, np.int64)
    for name, values in read():
        histogram += np.histogram(_real(values, name), _BINS, edges)[0]
    below = np.cumsum(histogram) / histogram.sum() * 100
    black, white = (
        float(edges[0] + np.searchsorted(below, p) * (edges[1] - edges[0]) / _BINS)
        for p in percentiles
    )
    if black >= white:
        black, white = low, high
    words = f"percentiles {percentiles[0]:g} and {percentiles[1]:g} of all {count} slices' values"
    return GreyWindow(black, white), words


def _real(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind not in "iuf":
        raise ImageError(
            f"{name} has values of type {values.dtype}; expected numbers: save it as grey.",
            subject=name,
        )
    numbers: np.ndarray = values.astype(np.float64)
    if values.dtype.kind == "f" and not (finite := np.isfinite(numbers)).all():
        raise ImageError(
            f"{name} has {int((~finite).sum())} values that are not finite (NaN or infinite); "
            f"expected numbers: fix the slice.",
            subject=name,
        )
    return numbers
