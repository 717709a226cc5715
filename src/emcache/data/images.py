"""The pixels of slices and masks, whatever file they come from."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from emcache.data.grey import GreyWindow
from emcache.data.plane import Plane
from emcache.data.single_channel import single_channel
from emcache.data.volumes.base import MOST_PIXELS, PageSize
from emcache.data.volumes.open import DECODER, IMAGE_SUFFIXES, open_volume
from emcache.errors import ImageError

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
    values = volume.read(plane.axis, plane.index or 0)
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
            then be called the label; and for values that are no whole numbers.
    """
    values = read_values(plane)
    if values.ndim == 3:
        how = "save the label as 8-bit grey, without alpha"
        values = single_channel(values, plane, f"mask {plane}", how)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf" or (values.dtype == np.uint64 and values.max() >= 1 << 63):
        raise ImageError(
            f"mask {plane} has values of type {values.dtype} that are no labels; expected whole "
            f"numbers below 2^63: save it with integer labels.",
            subject=plane.path,
        )
    if values.dtype.kind == "f":
        broken = ~(np.isfinite(values) & (np.floor(values) == values) & (abs(values) < _LARGEST))
        if broken.any():
            raise ImageError(
                f"mask {plane} has {int(broken.sum())} values that are no whole numbers (as "
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


def pixel_sha256(pixels: Shaped[np.ndarray, "row col"]) -> str:
    """Hex SHA-256 of the shape and values; the file's format and compression do not enter.

    Args:
        pixels: 8 bits, or 64-bit labels.
    """
    kind = b"u8:" if pixels.dtype == np.uint8 else b"i8:"
    digest = hashlib.sha256(struct.pack("<3sQQ", kind, *pixels.shape))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
