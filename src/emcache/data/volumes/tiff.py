"""TIFF in all its kinds, by tifffile: one page, many, BigTIFF, ImageJ and OME stacks."""

from __future__ import annotations

import logging
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tifffile

from emcache.data.plane import Part
from emcache.data.volumes.base import (
    MOST_PIXELS,
    NM_PER_UNIT,
    PageSize,
    Volume,
    VoxelSize,
    check_count,
    missing_file,
)
from emcache.errors import ImageError

_LOGGER = logging.getLogger("tifffile")
_SPATIAL = "YXS"
# No codec makes more bytes of one: a block of Zstandard is 4 bytes for 128 KiB.
_MOST_PER_BYTE = 40_000
_ALWAYS_PLAUSIBLE = 1 << 24


class TiffVolume(Volume):
    """The pages of a TIFF file, in its own order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._whole: np.ndarray | None = None
        self._stored: dict[int, Any] = {}
        with ExitStack() as open_files, _reading(path):
            # Other files that an OME header may name are not opened.
            self._file = open_files.enter_context(tifffile.TiffFile(path, _multifile=False))
            _check_chain(self._file, path)
            _check_ome_counts(self._file, path)
            self._pages, self._mapped = self._find_pages()
            sizes = [_size(page) for page in self._pages]
            if self._mapped is not None:
                sizes = [sizes[0]] * self._mapped.shape[0]
            dtypes = {_frame(page).dtype for page in self._pages}
            if len(dtypes) != 1 or None in dtypes:
                raise ImageError(
                    f"{path} has pages of {len(dtypes)} types of values "
                    f"({', '.join(sorted(map(str, dtypes)))}); expected one: save it anew.",
                    subject=path,
                )
            super().__init__(str(path), sizes, np.dtype(dtypes.pop()), _voxel_size(self._file))
            # It stays open as long as the volume is there, unless something was wrong with it.
            weakref.finalize(self, open_files.pop_all().close)

    def _find_pages(self) -> tuple[list[Any], np.ndarray | None]:
        """The pages; where one of them stands for a whole stack, the stack as an array."""
        file = self._file
        if not (file.is_ome or file.is_imagej):
            return [self._checked(page) for page in file.pages], None
        series = file.series[0]
        stack = {
            axis: n
            for axis, n in zip(series.axes, series.shape, strict=True)
            if axis not in _SPATIAL and n > 1
        }
        # ImageJ headers by other programs often call sections channels; OME says what it means.
        if len(stack) > 1 or (file.is_ome and "C" in stack) or len(file.series) > 1:
            found = ", ".join(f"{axis} = {n}" for axis, n in stack.items())
            raise ImageError(
                f"{self._path} holds {len(file.series)} series with the axes {found or 'Y, X'}; "
                f"expected one stack of one channel: save that alone.",
                subject=self._path,
            )
        wanted = next(iter(stack.values()), 1)
        check_count(str(self._path), wanted)
        pages = [page for page in series.pages if page is not None]
        if len(pages) == wanted:
            return [self._checked(page) for page in pages], None
        if len(pages) == 1 and series.dataoffset is not None:
            # ImageJ lists one page of a stack above 4 GB, and the others lie behind it.
            self._checked(pages[0])
            shape = (wanted, *_size(pages[0]))
            dtype = np.dtype(_frame(pages[0]).dtype).newbyteorder(file.byteorder)
            mapped = np.memmap(self._path, dtype, "r", series.dataoffset, shape)
            return pages, mapped
        raise ImageError(
            f"{self._path} says that it holds {wanted} planes, and lists {len(pages)}; expected "
            f"all in this file: restore it, or save it as one file.",
            subject=self._path,
        )

    def _checked(self, page: Any) -> Any:
        frame = _frame(page)
        rows, columns = _size(page)
        if rows * columns > MOST_PIXELS:
            raise ImageError(
                f"{self._path} claims {rows} x {columns} pixels; expected at most {MOST_PIXELS}: "
                f"cut it into smaller images.",
                subject=self._path,
            )
        held = min(sum(page.databytecounts), self._file.filehandle.size)
        if frame.nbytes > max(_ALWAYS_PLAUSIBLE, _MOST_PER_BYTE * held):
            raise ImageError(
                f"{self._path} claims {rows} x {columns} pixels in {held} bytes, which cannot hold "
                f"as many; restore the file.",
                subject=self._path,
            )
        if (
            frame.imagedepth != 1
            or frame.ndim - ("S" in frame.axes) != 2
            or frame.samplesperpixel > 4
        ):
            raise ImageError(
                f"{self._path} has a page with the axes {frame.axes} ({frame.samplesperpixel} "
                f"values a pixel); expected rows and columns of grey: save it anew.",
                subject=self._path,
            )
        if 0 in page.databytecounts:
            raise ImageError(
                f"{self._path} lacks the values of a strip or tile; restore the file.",
                subject=self._path,
            )
        return page

    def _read(self, axis: int, index: int) -> np.ndarray:
        with _reading(self._path), self._lock:
            if self._mapped is not None:
                place: list[Any] = [slice(None)] * 3
                place[axis] = index
                return np.asarray(self._shown(self._mapped[tuple(place)], self._pages[0]))
            if axis == 0:
                page = self._pages[index]
                return np.asarray(self._shown(page.asarray(), page))
            if self._whole is None:
                self._whole = np.stack([self._shown(page.asarray(), page) for page in self._pages])
            return np.ascontiguousarray(self._whole.take(index, axis=axis))

    def _read_part(self, axis: int, index: int, part: Part) -> np.ndarray:
        if axis or self._mapped is not None:
            # Of a mapped stack nothing is read that is not looked at.
            return np.ascontiguousarray(self._read(axis, index)[part.slices])
        page = self._pages[index]
        place = tuple(
            dict(zip("YX", part.slices, strict=True)).get(name, slice(None))
            for name in _frame(page).axes
        )
        with _reading(self._path), self._lock:
            if index not in self._stored:
                # Of the last page alone: a large one has many chunks.
                self._stored.clear()
                self._stored[index] = self._array_of(page)
            return np.asarray(self._shown(np.asarray(self._stored[index][place]), page))

    def _array_of(self, page: Any) -> Any:
        """A page as an array that decodes the strips or tiles that are asked for."""
        if page.is_memmappable:
            frame = _frame(page)
            dtype = np.dtype(frame.dtype).newbyteorder(self._file.byteorder)
            return np.memmap(self._path, dtype, "r", page.dataoffsets[0], frame.shape)
        import zarr  # which takes long, and few pages are read in parts

        return zarr.open_array(page.aszarr(), mode="r")

    def _shown(self, values: np.ndarray, page: Any) -> Any:
        """Values as brightness: palettes looked up, colours last, white at the top."""
        frame = _frame(page)
        if frame.photometric == tifffile.PHOTOMETRIC.PALETTE and frame.colormap is not None:
            greys = np.asarray(frame.colormap)[:, np.unique(values)]
            if (greys != greys[:1]).any():
                raise ImageError(
                    f"{self._path} has a palette of colours; expected greys: save it as 8-bit "
                    f"grey.",
                    subject=self._path,
                )
            return (np.asarray(frame.colormap)[0][values] >> 8).astype(np.uint8)
        if frame.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            values = ~values if values.dtype == bool else np.iinfo(values.dtype).max - values
        if values.ndim == 3 and frame.axes.startswith("S"):
            values = np.moveaxis(values, 0, -1)
        return values


def _check_chain(file: Any, path: Path) -> None:
    """Refuse pages of which one leads back to an earlier one: tifffile lists them without end.

    Raises:
        ImageError: They do, or there are more than could be listed.
    """
    form, handle = file.tiff, file.filehandle
    seen: set[int] = set()
    offset = file.pages.first.offset
    while offset:
        if offset in seen:
            raise ImageError(
                f"{path} has a page that leads back to an earlier one; expected a list of pages "
                f"that ends: restore the file.",
                subject=path,
            )
        seen.add(offset)
        check_count(str(path), len(seen))
        handle.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
        handle.seek(offset + form.tagnosize + tags * form.tagsize)
        (offset,) = struct.unpack(form.offsetformat, handle.read(form.offsetsize))


def _check_ome_counts(file: Any, path: Path) -> None:
    """Refuse an OME header by which tifffile would make lists of any length.

    Raises:
        ImageError: It claims too many planes.
    """
    if not file.is_ome:
        return
    for element in ET.fromstring(file.ome_metadata).iter():  # noqa: S314 - as tifffile does
        facts = element.attrib
        match element.tag.rpartition("}")[2]:
            case "Pixels":
                order = facts["DimensionOrder"][2:]
                check_count(str(path), prod(int(facts[f"Size{axis}"]) for axis in order))
            case "TiffData":
                for name in ("NumPlanes", "PlaneCount"):
                    check_count(str(path), int(facts.get(name, 0)))
            case name if name.startswith("ModuloAlong") and "Start" in facts:
                step = float(facts.get("Step", 1))
                check_count(str(path), int((float(facts["End"]) - float(facts["Start"])) / step))


def _size(page: Any) -> PageSize:
    return PageSize(_frame(page).imagelength, _frame(page).imagewidth)


def _frame(page: Any) -> Any:
    """What describes a page: many of a stack share it."""
    return page.keyframe


class _Complaints(logging.Handler):
    """What tifffile only logs: it then leaves out pages, and says so nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._thread = threading.get_ident()
        self.first: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and self.first is None:
            self.first = record.getMessage().partition("> ")[2]
            # One is enough: a damaged chain of pages makes millions.
            raise ValueError(self.first)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file turned into a sentence."""
    complaints = _Complaints()
    _LOGGER.addHandler(complaints)
    try:
        yield
    except FileNotFoundError:
        raise missing_file(path) from None
    except ImageError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        # tifffile and its codecs report damaged files by any of these.
        size = path.stat().st_size if path.exists() else -1
        what = "is empty (0 bytes)" if size == 0 else f"cannot be decoded ({error})"
        raise ImageError(f"{path} {what}; restore the file.", subject=path) from None
    finally:
        _LOGGER.removeHandler(complaints)
    if complaints.first is not None:
        raise ImageError(
            f"{path} cannot be decoded ({complaints.first}); restore the file.", subject=path
        )


def _voxel_size(file: Any) -> VoxelSize | None:
    """From OME or ImageJ headers; a plain TIFF's resolution is most often a printer's."""
    try:
        return _ome_voxel_size(file) if file.is_ome else _imagej_voxel_size(file)
    except (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError):
        # Broken XML is a syntax error.
        return None


def _ome_voxel_size(file: Any) -> VoxelSize | None:
    image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
    pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
    # The schema's default unit is the micrometre.
    z, y, x = (
        float(pixels[f"PhysicalSize{axis}"])
        * NM_PER_UNIT[str(pixels.get(f"PhysicalSize{axis}Unit", "µm")).lower()]
        for axis in "ZYX"
    )
    return (z, y, x) if min(z, y, x) > 0 else None


def _imagej_voxel_size(file: Any) -> VoxelSize | None:
    if not file.is_imagej:
        return None
    facts = file.imagej_metadata
    unit = NM_PER_UNIT[str(facts["unit"]).lower()]
    tags = file.pages[0].tags
    y, x = (
        unit * tags[f"{axis}Resolution"].value[1] / tags[f"{axis}Resolution"].value[0]
        for axis in "YX"
    )
    z = unit * float(facts["spacing"])
    return (z, y, x) if min(z, y, x) > 0 else None
