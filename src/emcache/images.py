"""Reading slices and masks as 8-bit arrays, and identifying them by their pixels.

A slice is 8-bit grey. A mask of any PNG or TIFF kind (1-bit, palette, 8-bit grey) is decoded to
0..255 before anything else looks at it: a 1-bit mask and its 8-bit copy give the same pixels.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from emcache.errors import ImageError

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
"""File name endings that count as images where no pattern is given."""

DECODER = f"1:pillow-{PIL.__version__}"
"""Changes whenever the same file might decode to other pixels."""

MOST_PIXELS = 1 << 30
"""Larger images are refused: a small file may claim any size."""

# Sections of 100 megapixels are everyday here; MOST_PIXELS stands in for Pillow's own limit.
Image.MAX_IMAGE_PIXELS = None

_COLOUR_MODES = ("RGB", "RGBA")
_DESCRIPTION = 270
_GREY_MODES = ("1", "L", "P", "LA")


def read_image(path: Path) -> UInt8[np.ndarray, "row col"]:
    """Decode one slice to 8-bit grey.

    A colour file whose three channels are equal counts as grey.

    Raises:
        ImageError: Missing, empty, unreadable, in colour, of more than 8 bits, or of many pages.
    """
    return _slice_pixels(_decode(path), path)


def _slice_pixels(picture: Image.Image, path: Path) -> UInt8[np.ndarray, "row col"]:
    if picture.mode in _COLOUR_MODES:
        channels = np.asarray(picture)[..., :3]
        if (channels != channels[..., :1]).any():
            raise ImageError(
                f"{path} is a colour image; a slice has one grey channel: convert it to grey.",
                subject=path,
            )
        return np.ascontiguousarray(channels[..., 0])
    return _grey(picture, path)


class PageSize(NamedTuple):
    """Size of one slice in a file."""

    rows: int
    columns: int


def page_sizes(path: Path) -> tuple[PageSize, ...]:
    """Size of every slice in an image file; a TIFF may hold many. Nothing is decoded.

    Raises:
        ImageError: Missing, empty, no image, of a kind that is no slice, or a stack whose pages
            are not listed.
    """
    sizes = []
    with _opened(path) as picture:
        for page in range(getattr(picture, "n_frames", 1)):
            picture.seek(page)
            _check_size(picture, path)
            if picture.mode not in (*_COLOUR_MODES, *_GREY_MODES):
                raise _unfit(picture, path)
            sizes.append(PageSize(picture.height, picture.width))
        tags = getattr(picture, "tag_v2", {})
        stated = re.search(r"^images=(\d+)", str(tags.get(_DESCRIPTION, "")), re.MULTILINE)
    # ImageJ lists one page of a stack above 4 GB, and says in words how many follow it.
    if stated and int(stated[1]) != len(sizes):
        raise ImageError(
            f"{path} says that it holds {stated[1]} images, and lists {len(sizes)}; expected a "
            f"page for each: save it as BigTIFF.",
            subject=path,
        )
    return tuple(sizes)


def read_pages(path: Path) -> Iterator[UInt8[np.ndarray, "row col"]]:
    """Decode every page of an image file to 8-bit grey, one after the other.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    with _opened(path) as picture:
        for page in range(getattr(picture, "n_frames", 1)):
            picture.seek(page)
            _check_size(picture, path)
            picture.load()
            yield _slice_pixels(picture.copy(), path)


def read_mask(path: Path) -> UInt8[np.ndarray, "row col"]:
    """Decode one mask to 0..255: a set bit is 255, a palette entry its grey value.

    Raises:
        ImageError: As for :func:`read_image`; any colour image is refused, since no single
            channel of it can be called the label.
    """
    picture = _decode(path)
    if picture.mode in _COLOUR_MODES:
        raise ImageError(
            f"mask {path} is a colour image (mode {picture.mode}); a mask has one channel: save "
            f"the label as 8-bit grey.",
            subject=path,
        )
    return _grey(picture, path)


def pixel_sha256(pixels: UInt8[np.ndarray, "row col"]) -> str:
    """Hex SHA-256 of the shape and values; the file's format and compression do not enter."""
    digest = hashlib.sha256(struct.pack("<3sQQ", b"u8:", *pixels.shape))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _decode(path: Path) -> Image.Image:
    with _opened(path) as picture:
        _check_size(picture, path)
        pages = getattr(picture, "n_frames", 1)
        if pages != 1:
            raise ImageError(
                f"{path} holds {pages} pages; a file holds one slice: split it into "
                f"single-page files.",
                subject=path,
            )
        picture.load()
        return picture


def _check_size(picture: Image.Image, path: Path) -> None:
    columns, rows = picture.size
    if rows * columns > MOST_PIXELS:
        raise ImageError(
            f"{path} claims {rows} x {columns} pixels; expected at most {MOST_PIXELS}: cut "
            f"it into smaller images.",
            subject=path,
        )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, with whatever goes wrong in it turned into a sentence."""
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError:
        raise ImageError(f"{path} is not there; check its name.", subject=path) from None
    except UnidentifiedImageError:
        size = path.stat().st_size
        what = "is empty (0 bytes)" if size == 0 else "is no image that can be recognised"
        raise ImageError(
            f"{path} {what}; expected PNG, TIFF or JPEG: restore the file.", subject=path
        ) from None
    except (OSError, EOFError, SyntaxError, ValueError, struct.error) as error:
        # Pillow reports damaged files by any of these, depending on the format.
        raise ImageError(
            f"{path} cannot be decoded ({error}); restore the file.", subject=path
        ) from None


def _grey(picture: Image.Image, path: Path) -> UInt8[np.ndarray, "row col"]:
    if picture.mode not in _GREY_MODES:
        raise _unfit(picture, path)
    if picture.mode == "P":
        _check_grey_palette(picture, path)
    return np.array(picture.convert("L"))


def _unfit(picture: Image.Image, path: Path) -> ImageError:
    return ImageError(
        f"{path} has pixels of mode {picture.mode}; expected 8-bit grey: convert it to 8 bits.",
        subject=path,
    )


def _check_grey_palette(picture: Image.Image, path: Path) -> None:
    """Refuse colours, whose brightness says nothing about the label they stand for."""
    used = np.unique(np.asarray(picture))
    colours = np.asarray(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)[used]
    if (colours != colours[:, :1]).any():
        raise ImageError(
            f"{path} has a palette of colours; expected greys: save it as 8-bit grey.",
            subject=path,
        )
