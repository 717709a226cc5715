"""Large slices, read part by part: a section of 20,000 pixels a side is not held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from emcache.data.images import page_sizes, read_image, read_mask
from emcache.data.plane import Part, Plane
from emcache.data.resize import GreyWindow

LARGE = 1 << 24
"""Pixels above which a slice is read part by part."""

_STRIP = 1 << 23
_SMALL_EDGE = 4096


def is_large(rows: int, columns: int) -> bool:
    """Whether a slice of this size is read part by part."""
    return rows * columns > LARGE


def plane_size(plane: Plane) -> tuple[int, int]:
    """Rows and columns of a plane, or of the part that is meant; no pixel is decoded.

    Raises:
        ImageError: Missing, empty, or no image.
    """
    if plane.part is not None:
        return plane.part.rows, plane.part.columns
    rows, columns = page_sizes(plane)[plane.index or 0]
    return rows, columns


def strips(plane: Plane, multiple: int = 1) -> Iterator[Plane]:
    """Parts of a plane, one below the other: rows of some 8 million pixels.

    Args:
        plane: Which.
        multiple: That the rows of each but the last are of.
    """
    rows, columns = plane_size(plane)
    top, left = (0, 0) if plane.part is None else plane.part[:2]
    step = max(1, _STRIP // columns // multiple) * multiple
    for row in range(0, rows, step):
        yield replace(plane, part=Part(top + row, left, min(step, rows - row), columns))


def parts_of(plane: Plane) -> Iterator[Plane]:
    """The plane, or of a large one its strips: for what is gathered over all pixels.

    Args:
        plane: Which.
    """
    if is_large(*plane_size(plane)):
        yield from strips(plane)
    else:
        yield plane


def centre(plane: Plane) -> Plane:
    """The plane, or of a large one its middle."""
    rows, columns = plane_size(plane)
    if not is_large(rows, columns):
        return plane
    top, left = (0, 0) if plane.part is None else plane.part[:2]
    height, width = min(rows, _SMALL_EDGE), min(columns, _SMALL_EDGE)
    middle = Part(top + (rows - height) // 2, left + (columns - width) // 2, height, width)
    return replace(plane, part=middle)


def reduction(rows: int, columns: int) -> int:
    """By how much a slice is reduced for a look at all of it: 1 unless it is large."""
    return -(-max(rows, columns) // _SMALL_EDGE) if is_large(rows, columns) else 1


def reduced_size(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of a slice once it is reduced."""
    factor = reduction(rows, columns)
    return -(-rows // factor), -(-columns // factor)


def read_reduced_image(plane: Plane, window: GreyWindow | None) -> UInt8[np.ndarray, "row col"]:
    """A slice as :func:`emcache.data.images.read_image` reads it; a large one is averaged.

    Raises:
        ImageError: As there.
    """
    factor = reduction(*plane_size(plane))
    if factor == 1:
        return read_image(plane, window)
    parts = [
        np.asarray(Image.fromarray(read_image(strip, window)).reduce(factor))
        for strip in strips(plane, factor)
    ]
    return np.concatenate(parts)


def read_reduced_mask(
    plane: Plane,
) -> UInt8[np.ndarray, "row col"] | Int64[np.ndarray, "row col"]:
    """A mask as :func:`emcache.data.images.read_mask` reads it; of a large one every n-th pixel.

    Raises:
        ImageError: As there.
    """
    factor = reduction(*plane_size(plane))
    if factor == 1:
        return read_mask(plane)
    parts = [read_mask(strip)[::factor, ::factor] for strip in strips(plane, factor)]
    return np.concatenate(parts)
