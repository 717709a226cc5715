"""The pixels of slices and masks, whatever file they come from, and outlines drawn on them."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import scipy  # its parts are imported where they are first used
from jaxtyping import Bool, Int64, Shaped, UInt8
from numpy.typing import DTypeLike
from PIL import Image

from emcache.data.plane import Plane
from emcache.data.resize import GreyWindow
from emcache.data.volumes.base import MOST_PIXELS, PageSize
from emcache.data.volumes.open import DECODER, IMAGE_SUFFIXES, open_volume
from emcache.errors import ImageError


def single_channel(
    values: Shaped[np.ndarray, "row col channel"], plane: Plane, name: str, what_to_do: str
) -> Shaped[np.ndarray, "row col"]:
    """The grey that all colours of a plane agree on.

    Args:
        values: One or three colours; of two or four channels the last is alpha.
        plane: Where they are from.
        name: What to call it in errors.
        what_to_do: The advice at the end of an error.

    Raises:
        ImageError: Colours differ, or alpha does; the first such pixel is named with its values.
    """
    if (grey := _grey_under_one_alpha(values)) is not None:
        return grey
    channels = values.shape[-1]
    colours = values[..., : channels - (channels in (2, 4))]
    # Plane by plane: reducing over a last axis of three takes several times as long.
    differing = np.zeros(colours.shape[:2], bool)
    for channel in range(1, colours.shape[-1]):
        differing |= colours[..., channel] != colours[..., 0]
    if differing.any():
        row, column, many = _first(differing)
        shown = ", ".join(str(value) for value in colours[row, column].tolist())
        raise ImageError(
            f"{name} is a colour image: its channels differ in {many}, first in row {row}, column "
            f"{column} ({shown}); expected the same value in each: {what_to_do}.",
            subject=plane.path,
        )
    if colours.shape[-1] < channels:
        _check_alpha(values[..., -1], plane, name, what_to_do)
    return np.ascontiguousarray(colours[..., 0])


def _grey_under_one_alpha(
    values: Shaped[np.ndarray, "row col channel"],
) -> UInt8[np.ndarray, "row col"] | None:
    """Grey of RGBA whose colours agree under one alpha; None for all else.

    Pixel by pixel as one number of 32 bits, in less than half the time of channel by channel.
    """
    if values.shape[-1] != _RGBA or values.dtype != np.uint8 or not values.flags.c_contiguous:
        return None
    words = values.view("<u4")[..., 0]
    colours_differ = ((words >> 8) ^ words) & 0xFFFF
    alpha = words >> 24
    if colours_differ.any() or (alpha != alpha[0, 0]).any():
        return None
    return words.astype(np.uint8)


def _check_alpha(
    alpha: Shaped[np.ndarray, "row col"], plane: Plane, name: str, what_to_do: str
) -> None:
    if (alpha == alpha[0, 0]).all():
        return
    found, counts = np.unique(alpha, return_counts=True)
    usual = found[counts.argmax()]
    row, column, many = _first(alpha != usual)
    raise ImageError(
        f"the alpha of {name} varies: it is {alpha[row, column]} in row {row}, column {column}, "
        f"and {usual} in most pixels ({many} differ from that); expected the same everywhere, "
        f"since a grey has no alpha: {what_to_do}.",
        subject=plane.path,
    )


def _first(marked: Bool[np.ndarray, "row col"]) -> tuple[int, int, str]:
    """Row and column of the first marked pixel, and how many there are in words."""
    row, column = divmod(int(marked.argmax()), marked.shape[1])
    return row, column, f"{int(marked.sum())} of {marked.size} pixels"


__all__ = [
    "DECODER",
    "IMAGE_SUFFIXES",
    "MOST_PIXELS",
    "PageSize",
    "page_sizes",
    "pixel_sha256",
    "read_grey",
    "read_image",
    "read_mask",
    "read_values",
]

_SET = np.uint8(255)
_RGBA = 4
# Labels are kept in 64 bits.
_LARGEST = float(1 << 63)


def read_values(plane: Plane) -> Shaped[np.ndarray, "row col *channel"]:
    """Decode one plane to the values that the file stores; a set bit is 255.

    Where there is a third axis it holds one or three colours, and behind them perhaps alpha.

    Raises:
        ImageError: Missing, empty, unreadable, too large, or not where it should be.
    """
    volume = open_volume(plane.path, plane.inner)
    if plane.index is None and len(volume.sizes) != 1:
        raise ImageError(
            f"{plane} holds {len(volume.sizes)} pages; expected one picture: use layout stack, or "
            f"name the file in layout folder.",
            subject=plane.path,
        )
    values = volume.read(plane.axis, plane.index or 0, plane.part)
    return values.astype(np.uint8) * _SET if values.dtype == bool else values


def read_grey(plane: Plane) -> Shaped[np.ndarray, "row col"]:
    """Decode one slice to the greys that the file stores.

    A colour file whose channels agree, and whose alpha is the same everywhere, counts as grey.

    Raises:
        ImageError: As for :func:`read_values`, and for a slice in colour.
    """
    values = read_values(plane)
    if values.ndim == 3:
        values = single_channel(values, plane, str(plane), "convert it to grey, without alpha")
    return values


def read_image(plane: Plane, window: GreyWindow | None = None) -> UInt8[np.ndarray, "row col"]:
    """Decode one slice to 8-bit grey.

    Args:
        plane: Which.
        window: Values that become 0 and 255, for slices of more than 8 bits; None for 8 bits.

    Raises:
        ImageError: Missing, empty, unreadable, in colour, or of another depth than was said.
    """
    values = read_grey(plane)
    if values.dtype == np.uint8:
        if window is not None:
            raise ImageError(
                f"{plane} has 8 bits, and the dataset's grey_window {window} is for slices of "
                f"more; expected one depth in a dataset: convert it, or take grey_window out.",
                subject=plane.path,
            )
        return values
    if window is None:
        raise ImageError(
            f"{plane} has values of type {values.dtype}, and no grey_window says which of them are "
            f"black and white; expected 8 bits, or grey_window = [black, white] in the dataset's "
            f"table.",
            subject=plane.path,
        )
    return window.apply(values, str(plane))


def read_mask(plane: Plane) -> UInt8[np.ndarray, "row col"] | Int64[np.ndarray, "row col"]:
    """Decode one mask to its labels: a set bit is 255, a palette entry its grey value.

    Labels that fit are given as 8 bits, whatever the file takes for them. As for slices, colours
    that agree under an alpha that is the same everywhere are one grey.

    Raises:
        ImageError: As for :func:`read_image`; where colours differ, since no single channel can
            then be called the label; and for values that are not whole numbers.
    """
    values = read_values(plane)
    if values.ndim == 3:
        how = "save the label as 8-bit grey, without alpha"
        values = single_channel(values, plane, f"mask {plane}", how)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf" or (values.dtype == np.uint64 and values.max() >= 1 << 63):
        raise ImageError(
            f"mask {plane} has values of type {values.dtype} that are not labels; expected whole "
            f"numbers below 2^63: save it with integer labels.",
            subject=plane.path,
        )
    if values.dtype.kind == "f":
        broken = ~(np.isfinite(values) & (np.floor(values) == values) & (abs(values) < _LARGEST))
        if broken.any():
            raise ImageError(
                f"mask {plane} has {int(broken.sum())} values that are not whole numbers (as "
                f"{values[broken][0]}); a mask holds labels: save it with integer labels.",
                subject=plane.path,
            )
    if values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8)
    return values.astype(np.int64)


def page_sizes(plane: Plane) -> tuple[PageSize, ...]:
    """Rows and columns of every page of a file; no pixel is decoded.

    Raises:
        ImageError: Missing, empty, or no image.
    """
    return open_volume(plane.path, plane.inner).sizes_along(plane.axis)


class PixelDigest:
    """SHA-256 of shape and values; the file's format and compression do not enter.

    Args:
        size: Rows and columns.
        dtype: 8 bits, or 64-bit labels.
    """

    def __init__(self, size: tuple[int, ...], dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        kind = b"u8:" if self._dtype == np.uint8 else b"i8:"
        self._digest = hashlib.sha256(struct.pack("<3sQQ", kind, *size))

    def update(self, rows: Shaped[np.ndarray, "row col"]) -> None:
        """Take the next rows."""
        self._digest.update(np.ascontiguousarray(rows, dtype=self._dtype).data)

    def hexdigest(self) -> str:
        """Of all rows."""
        return self._digest.hexdigest()


def pixel_sha256(pixels: Shaped[np.ndarray, "row col"]) -> str:
    """Hex SHA-256 of the shape and values, as :class:`PixelDigest` makes it.

    Args:
        pixels: 8 bits, or 64-bit labels.
    """
    digest = PixelDigest(pixels.shape, pixels.dtype)
    digest.update(pixels)
    return digest.hexdigest()


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
        predicted: Predicted mask, of the same size as the true one, or None.
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
    edge: np.ndarray = inside & ~scipy.ndimage.binary_erosion(
        inside, iterations=_LINE, border_value=1
    )
    return edge
