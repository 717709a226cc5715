"""From a slice to what a backbone sees, and from its mask to what a head learns.

Sizes follow the study (arXiv 2602.08505): the longest edge is scaled to a target, the aspect ratio
kept, each side floored to a multiple of the patch; images bicubic, masks nearest; grey replicated
to three channels and normalised with ImageNet's mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from emcache.data.classes import IGNORED
from emcache.data.tiling import Tiling
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
        read: Gives names and values of every slice, or of its parts one after the other; called
            twice, and one is held at a time.
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
    low, high, whole = np.inf, -np.inf, True
    names: set[str] = set()
    for name, values in read():
        numbers = _real(values, name)
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
        whole = whole and values.dtype.kind in "iu"
        names.add(name)
    count = len(names)
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


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_COARSEST_NM = 1e6


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Everything about preprocessing that could change a token.

    Sizes are set by one of two rules: ``longest_edge`` scales every slice to one length, whatever
    it shows; ``pixel_size_nm`` brings every dataset to one physical scale.
    """

    longest_edge: int | None
    """Target of the longest edge in pixels, before flooring to whole patches."""
    patch: int
    """Side of a patch in pixels."""
    pixel_size_nm: float | None = None
    """Target pitch of rows and columns in nanometres, in place of ``longest_edge``."""
    pitch_nm: tuple[float, float] | None = None
    """Pitch of the dataset's rows and columns in nanometres; for ``pixel_size_nm``."""
    greys: Mapping[str, Any] = field(default_factory=dict)
    """What is done to greys first: :meth:`emcache.data.greys.GreyRule.identity`."""
    tiling: Tiling | None = None
    """How slices are cut into tiles, which are then sized as slices are; None for whole ones."""

    def __post_init__(self) -> None:
        if self.pixel_size_nm is not None:
            if not 0 < self.pixel_size_nm < _COARSEST_NM:
                raise UsageError(
                    f"--pixel-size {self.pixel_size_nm} is not a pitch; expected nanometres "
                    f"above 0 and below {_COARSEST_NM}.",
                    subject=self.pixel_size_nm,
                )
            assert self.pitch_nm is not None  # noqa: S101 - preprocessing_of sees to it
        elif self.longest_edge is not None and self.longest_edge < self.patch:
            raise UsageError(
                f"--longest-edge {self.longest_edge} is below one patch of {self.patch} px; the "
                f"nearest valid size is {self.patch}.",
                subject=self.longest_edge,
            )

    @property
    def words(self) -> str:
        """``1022 px``, or ``8 nm`` a pixel."""
        if self.pixel_size_nm is not None:
            return f"{self.pixel_size_nm:g}nm"
        return f"{self.longest_edge}px"

    def identity(self) -> dict[str, Any]:
        """Canonical JSON value that enters a feature set's fingerprint.

        The dataset's own pitch is not part of it: it decides the sizes, which are keyed beside it.
        """
        rule = (
            {"resize": "longest-edge-floor-to-patch", "longest_edge": self.longest_edge}
            if self.pixel_size_nm is None
            else {"resize": "pixel-size-floor-to-patch", "pixel_size_nm": self.pixel_size_nm}
        )
        return {
            **rule,
            "patch": self.patch,
            "image_filter": "pillow-bicubic",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            **self.greys,
            **({} if self.tiling is None else {"tile": list(self.tiling)}),
        }

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns in pixels that a slice is resized to.

        Raises:
            ImageError: The slice is so narrow that not one patch would fit.
        """
        grid = self.grid_of(height, width)
        return grid[0] * self.patch, grid[1] * self.patch

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patch tokens.

        Raises:
            ImageError: The slice is so narrow that not one patch would fit.
        """
        if self.pixel_size_nm is not None and self.pitch_nm is not None:
            scales = tuple(pitch / self.pixel_size_nm for pitch in self.pitch_nm)
        else:
            assert self.longest_edge is not None  # noqa: S101 - one of the two rules is set
            scales = (self.longest_edge / max(height, width),) * 2
        rows, columns = (
            int(side * scale + 1e-9) // self.patch
            for side, scale in zip((height, width), scales, strict=True)
        )
        if not rows or not columns:
            option = "--longest-edge" if self.pixel_size_nm is None else "--pixel-size"
            better = "larger" if self.pixel_size_nm is None else "smaller"
            raise ImageError(
                f"a slice of {height} x {width} pixels has a side below one patch of {self.patch} "
                f"px at {option} {self.words.rstrip('pxnm')}; choose a {better} one.",
                subject=(height, width),
            )
        return rows, columns


def preprocessing_of(
    patch: int,
    longest_edge: int | None,
    pixel_size_nm: float | None,
    voxel_size_nm: tuple[float, float, float] | None,
    dataset: str,
) -> Preprocessing:
    """The preprocessing of one dataset's slices.

    Args:
        patch: Side of the backbone's patch in pixels.
        longest_edge: The one rule.
        pixel_size_nm: The other; it wins.
        voxel_size_nm: The dataset's, where it is known.
        dataset: The dataset's name, for the error.

    Raises:
        UsageError: A size that cannot be, or one in nanometres where the voxel size is unknown.
    """
    if pixel_size_nm is None:
        return Preprocessing(longest_edge, patch)
    if voxel_size_nm is None:
        raise UsageError(
            f"the voxel size of {dataset} is unknown, and --pixel-size {pixel_size_nm:g} needs it; "
            f"set voxel_size_nm = [z, y, x] in its table of emcache.toml (nanometres), or use "
            f"--longest-edge.",
            subject=dataset,
        )
    return Preprocessing(None, patch, pixel_size_nm, voxel_size_nm[1:])


def resize_image(
    pixels: UInt8[np.ndarray, "row col"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_row new_col"]:
    """Resize a slice to rows x columns, bicubic with antialiasing."""
    return _resize(pixels, size, Image.Resampling.BICUBIC)


def resize_mask(
    pixels: UInt8[np.ndarray, "row col"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_row new_col"]:
    """Resize a decoded mask to rows x columns, nearest neighbour."""
    return _resize(pixels, size, Image.Resampling.NEAREST)


def resize_values(
    values: Float32[np.ndarray, "row col"], size: tuple[int, int]
) -> Float32[np.ndarray, "new_row new_col"]:
    """Resize numbers, such as probabilities, to rows x columns, bilinear with antialiasing."""
    rows, columns = size
    if values.shape == size:
        return values
    return np.array(Image.fromarray(values).resize((columns, rows), Image.Resampling.BILINEAR))


def resize_colour(
    pixels: UInt8[np.ndarray, "row col 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "new_row new_col 3"]:
    """Resize a coloured picture to rows x columns, nearest neighbour."""
    rows, columns = size
    return np.array(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.NEAREST))


def occupancy(
    labels: UInt8[np.ndarray, "row col"], patch: int
) -> Float32[np.ndarray, "token_row token_col"]:
    """Share of each patch's pixels that are foreground, of those that are not ignored.

    Args:
        labels: 0 background, :data:`emcache.data.classes.IGNORED`, anything else foreground.
        patch: Side of a patch in pixels.

    Returns:
        NaN for a patch whose pixels are all ignored.
    """
    rows, columns = (side // patch for side in labels.shape)
    patches = labels.reshape(rows, patch, columns, patch)
    ignored = (patches == IGNORED).sum(axis=(1, 3))
    foreground = (patches != 0).sum(axis=(1, 3)) - ignored
    with np.errstate(invalid="ignore"):
        share: Float32[np.ndarray, "token_row token_col"] = (
            foreground / (patch * patch - ignored)
        ).astype(np.float32)
    return share


def _resize(
    pixels: UInt8[np.ndarray, "row col"], size: tuple[int, int], resampling: Image.Resampling
) -> UInt8[np.ndarray, "new_row new_col"]:
    rows, columns = size
    if pixels.shape == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize((columns, rows), resampling))
