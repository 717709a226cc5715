"""PNG and JPEG, by Pillow: one picture a file."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageFile, UnidentifiedImageError

from emcache.data.plane import Part
from emcache.data.volumes.base import MOST_PIXELS, PageSize, Volume, missing_file
from emcache.errors import ImageError

# Sections of 100 megapixels are everyday here; MOST_PIXELS stands in for Pillow's own limit.
Image.MAX_IMAGE_PIXELS = None

# A byte of a PNG holds no more: DEFLATE gives at most 1032 bytes for one, of 8 pixels each.
_MOST_PER_BYTE = 8 * 1032
_ALWAYS_PLAUSIBLE = 1 << 24
# Pictures of more pixels are kept one at a time.
_KEPT_PIXELS = 1 << 24

_COLOUR = ("LA", "RGB", "RGBA")
# What Pillow keeps of each channel in colour, whatever the file has.
_COLOUR_BITS = 8

_DTYPES = {
    "1": "bool",
    "L": "uint8",
    "LA": "uint8",
    "P": "uint8",
    "RGB": "uint8",
    "RGBA": "uint8",
    "I;16": "uint16",
    "I;16B": "uint16",
    "I": "int32",
    "F": "float32",
}


class Picture(Volume):
    """A file with one picture; it is opened again for every reading.

    Args:
        path: The file; only its head is read.

    Raises:
        ImageError: Missing, empty, no picture, animated, or of a kind that is not read.
    """

    def __init__(self, path: Path) -> None:
        with _opened(path) as picture:
            if picture.mode not in _DTYPES:
                raise ImageError(
                    f"{path} has pixels of mode {picture.mode}; expected grey: convert it to grey.",
                    subject=path,
                )
            if getattr(picture, "n_frames", 1) != 1:
                raise ImageError(
                    f"{path} is animated ({getattr(picture, 'n_frames', 1)} frames); expected one "
                    f"picture: save its frames as files, or as a TIFF of many pages.",
                    subject=path,
                )
            if picture.mode in _COLOUR and _bits(picture) > _COLOUR_BITS:
                raise ImageError(
                    f"{path} has {_bits(picture)} bits in each of several channels, of which only "
                    f"{_COLOUR_BITS} would be read; expected one channel, or {_COLOUR_BITS} bits: "
                    f"save it as 16-bit grey.",
                    subject=path,
                )
            size, dtype = PageSize(picture.height, picture.width), _DTYPES[picture.mode]
            channels = len(picture.getbands())
            self._shape = (*size, *([channels] if channels > 1 else []))
            self._is_plain = _is_plain(picture)
        super().__init__(str(path), (size,), np.dtype(dtype), None)
        self._path = path

    def _read_part(self, axis: int, index: int, part: Part) -> np.ndarray:
        # The format has no parts, and the next one asked for is most often of the same picture, or
        # of the one that another thread is at.
        facts, (rows, columns) = self._path.stat(), self.sizes[0]
        kept = _last_planes if rows * columns <= _KEPT_PIXELS else _last_large_plane
        whole = kept(self._path, axis, index, facts.st_mtime_ns, facts.st_size)
        return whole[part.slices].copy()

    def _read(self, axis: int, index: int) -> np.ndarray:
        plane = self._decoded_at_once() if self._is_plain else None
        if plane is None:
            with _opened(self._path) as picture:
                picture.load()
                if picture.mode == "P":
                    _check_grey_palette(picture, self._path)
                plane = _values(picture)
        # Rows (y) or columns (x) of the only section.
        return plane if axis == 0 else plane[None].take(index, axis=axis)

    def _decoded_at_once(self) -> Shaped[np.ndarray, "row col *channel"] | None:
        """Pixels of a plain PNG; None where the file is not what it was, or damaged.

        Pillow decodes piece by piece, and takes the interpreter's lock for each: threads that read
        would wait for one another.
        """
        import imagecodecs

        try:
            values: np.ndarray = imagecodecs.spng_decode(self._path.read_bytes())
        except (OSError, imagecodecs.SpngError):  # Pillow says better what is wrong
            return None
        return values if values.shape == self._shape and values.dtype == np.uint8 else None


def _read_plane(path: Path, axis: int, index: int, *stamp: int) -> np.ndarray:
    del stamp
    return Picture(path).read(axis, index)


_last_planes = lru_cache(os.cpu_count() or 1)(_read_plane)
_last_large_plane = lru_cache(1)(_read_plane)


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """An image file, with whatever goes wrong in it turned into a sentence."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            columns, rows = picture.size
            if rows * columns > MOST_PIXELS:
                raise ImageError(
                    f"{path} claims {rows} x {columns} pixels; expected at most {MOST_PIXELS}: cut "
                    f"it into smaller images.",
                    subject=path,
                )
            size = path.stat().st_size
            if rows * columns > max(_ALWAYS_PLAUSIBLE, _MOST_PER_BYTE * size):
                raise ImageError(
                    f"{path} claims {rows} x {columns} pixels in {size} bytes, which cannot hold "
                    f"as many; restore the file.",
                    subject=path,
                )
            yield picture
    except FileNotFoundError:
        raise missing_file(path) from None
    except UnidentifiedImageError:
        size = path.stat().st_size
        what = "is empty (0 bytes)" if size == 0 else "is not an image that can be recognised"
        raise ImageError(
            f"{path} {what}; expected PNG or JPEG as its name says: restore the file.",
            subject=path,
        ) from None
    except (OSError, EOFError, SyntaxError, ValueError, struct.error) as error:
        # Pillow reports damaged files by any of these, depending on the format.
        raise ImageError(
            f"{path} cannot be decoded ({error}); restore the file.", subject=path
        ) from None


def _is_plain(picture: ImageFile.ImageFile) -> bool:
    """Whether it is a PNG that has 8 bits in each channel and nothing else to heed."""
    raw = picture.tile[0].args if picture.tile else None
    return (
        picture.format == "PNG"
        and raw == picture.mode
        and picture.mode in ("L", "RGB", "RGBA")
        and "transparency" not in picture.info
    )


def _values(picture: Image.Image) -> Shaped[np.ndarray, "row col *channel"]:
    """Greys, or colours; with alpha behind them where the file has any."""
    transparent = picture.info.get("transparency")
    if transparent is not None and picture.mode.startswith("I;16"):
        # One value counts as transparent. Pillow converts this for 8 bits, and not for 16.
        values = np.array(picture)
        return np.stack([values, np.where(values == transparent, 0, 255).astype(values.dtype)], -1)
    if transparent is not None and picture.mode in ("1", "L", "P", "RGB"):
        return np.array(picture.convert("RGBA" if picture.mode == "RGB" else "LA"))
    return np.array(picture.convert("L") if picture.mode == "P" else picture)


def _bits(picture: ImageFile.ImageFile) -> int:
    """Bits of a channel in the file; Pillow's mode says only what it makes of them."""
    raw = picture.tile[0].args if picture.tile else None
    return 16 if isinstance(raw, str) and ";16" in raw else 8


def _check_grey_palette(picture: Image.Image, path: Path) -> None:
    """Refuse colours, whose brightness says nothing about the label they stand for.

    The same holds for pixels without an entry in the palette, which Pillow shows as black.
    """
    used = np.unique(np.asarray(picture))
    colours = np.asarray(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    if used[-1] >= len(colours):
        raise ImageError(
            f"{path} has a palette of {len(colours)} entries, and pixels of entry {used[-1]}; "
            f"expected an entry for each pixel: restore the file, or save it as 8-bit grey.",
            subject=path,
        )
    if (colours[used] != colours[used, :1]).any():
        raise ImageError(
            f"{path} has a palette of colours; expected greys: save it as 8-bit grey.",
            subject=path,
        )
