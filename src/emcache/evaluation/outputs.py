"""Files of a prediction: what goes where, written page by page so that a stack needs no memory.

::

    DIR/NAME.tif                the mask: 0 and 255, as many pages as the input
    DIR/probabilities/NAME.tif  float32, 0 to 1
    DIR/overlays/NAME.png       the slice with the predicted outline; NAME/000.png ... for a stack

A volume may become OME-Zarr instead, by :mod:`emcache.evaluation.volumes`::

    DIR/NAME.ome.zarr                 the slices, with labels/mask and labels/objects
    DIR/NAME.objects.parquet          a row for each object
    DIR/probabilities/NAME.ome.zarr   float32, 0 to 1
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import tifffile
from jaxtyping import Shaped, UInt8
from numpy.typing import DTypeLike
from PIL import Image

from emcache.data.images import IMAGE_SUFFIXES, PageSize, page_sizes
from emcache.data.plane import Plane, natural_sorted
from emcache.data.sections import is_large
from emcache.data.volumes.zarr_array import is_zarr
from emcache.errors import UsageError
from emcache.evaluation.pyramids import Spool

_TIFF = (".tif", ".tiff")
OME_ZARR = ".ome.zarr"
"""Ending of a volume."""
PARTIAL = ".partial"
"""Ending of what is being written."""
# Offsets in a classic TIFF have 32 bits; what compression saves is not relied on.
_CLASSIC_TIFF = 3_900_000_000
_WITH_COPIES = 1.4


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One input and where its results go."""

    input: Path
    planes: tuple[Plane, ...]
    """Every slice in it."""
    pages: tuple[PageSize, ...]
    """Rows and columns of every slice in the file."""
    mask: Path
    """TIFF for TIFF and for all that holds several slices, PNG for all others."""
    probability: Path | None
    """None where it was not asked for."""
    overlays: tuple[Path, ...]
    """A picture for each page; none where they were not asked for."""
    objects: Path | None = None
    """Table of the objects of a volume; None unless the mask is an OME-Zarr."""

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Every file that will be written."""
        others = [path for path in (self.probability, self.objects) if path is not None]
        return (self.mask, *others, *self.overlays)


def plan_files(
    inputs: Sequence[Path],
    out: Path,
    *,
    probabilities: bool,
    overlays: bool,
    overwrite: bool,
    ome_zarr: bool | None = None,
) -> tuple[PlannedFile, ...]:
    """Look at every page of every input and decide where its results go; nothing is written.

    Args:
        inputs: Image files and volumes (``FILE:/ARRAY`` in HDF5 and Zarr), and folders whose
            images are meant, in natural order.
        out: Folder of the results.
        probabilities: Whether they are asked for.
        overlays: Whether they are asked for.
        overwrite: Whether files that are there already may be replaced; inputs never are.
        ome_zarr: Whether to write OME-Zarr; None for inputs that are Zarr themselves.

    Raises:
        UsageError: A folder without images, two results of one name, or one that would overwrite
            an input or, without leave, another file.
        ImageError: No image, or of a kind that is not a slice.
    """
    files = tuple(_plan(path, out, probabilities, overlays, ome_zarr) for path in _listed(inputs))
    places: dict[Path, Path] = {}
    read = {file.planes[0].path.resolve() for file in files}
    home = out.resolve()
    for file in files:
        for path in file.outputs:
            if path.resolve() in read:
                raise UsageError(
                    f"a result of {file.input} would overwrite {path}, which is an input; choose "
                    f"another --out.",
                    subject=file.input,
                )
            if not path.parent.resolve().is_relative_to(home):
                raise UsageError(
                    f"{path.parent} is a link to {path.parent.resolve()}, outside {out}; choose "
                    f"another --out.",
                    subject=path,
                )
            if path in places:
                raise UsageError(
                    f"{places[path]} and {file.input} would both become {path}; predict them into "
                    f"different folders.",
                    subject=file.input,
                )
            if overwrite and path.is_dir() and not is_zarr(path):
                raise UsageError(
                    f"{path} is a folder and no Zarr, so it is not replaced; choose another --out.",
                    subject=path,
                )
            if path.exists() and not overwrite:
                raise UsageError(
                    f"{path} is there already; choose another --out, or replace it with "
                    f"--overwrite.",
                    subject=path,
                )
            places[path] = file.input
    return files


Rows = Shaped[np.ndarray, "row col *channel"]


class Pages(ABC):
    """A file that takes pages one after the other, each a few rows at a time."""

    @abstractmethod
    def begin(self, size: PageSize) -> None:
        """The next page."""

    @abstractmethod
    def append(self, rows: Rows) -> None:
        """The next rows of the page."""

    @abstractmethod
    def end(self) -> None:
        """The page is complete."""

    def write(self, page: Rows) -> None:
        """A whole page."""
        self.begin(PageSize(*page.shape[:2]))
        self.append(page)
        self.end()


@dataclass(frozen=True, slots=True)
class Writers:
    """The open results of one input; see :func:`writers`."""

    mask: Pages
    """Of 0 and 255, or of the values of named classes; of a volume, of labels."""
    probability: Pages | None
    """Of float32; None where they were not asked for."""
    overlay: Callable[[UInt8[np.ndarray, "row col 3"]], None] | None
    """Takes colour pictures; None where they were not asked for."""
    image: Pages | None = None
    """Of greys, for a volume that holds the slices themselves."""
    objects: list[pl.DataFrame] = field(default_factory=list)
    """Filled when all is written: the objects of a volume."""


@contextmanager
def writers(file: PlannedFile) -> Iterator[Writers]:
    """Open the results of one input; they take their names when the block ends, and not before."""
    pixels = sum(size.rows * size.columns for size in file.pages)
    with ExitStack() as stack:

        def opened(path: Path, dtype: DTypeLike) -> Pages:
            item = np.dtype(dtype)
            return stack.enter_context(_open(path, pixels * item.itemsize, item))

        yield Writers(
            opened(file.mask, np.uint8),
            None if file.probability is None else opened(file.probability, np.float32),
            picture_writer(file, stack),
        )


def picture_writer(
    file: PlannedFile, stack: ExitStack
) -> Callable[[UInt8[np.ndarray, "row col 3"]], None] | None:
    """What writes the overlays of an input one after the other; None where there are none.

    Args:
        file: The input.
        stack: Gives the pictures their names when it ends.
    """
    overlays = iter(file.overlays)

    def write(page: UInt8[np.ndarray, "row col 3"]) -> None:
        stack.enter_context(_open(next(overlays), 0, np.dtype(np.uint8))).write(page)

    return write if file.overlays else None


@contextmanager
def _open(path: Path, most_bytes: int, dtype: np.dtype[Any]) -> Iterator[Pages]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL}")
    # A link of that name would be written through.
    partial.unlink(missing_ok=True)
    try:
        if path.suffix.lower() in _TIFF:
            with tifffile.TiffWriter(
                partial, bigtiff=most_bytes * _WITH_COPIES > _CLASSIC_TIFF
            ) as tiff:
                pages = _TiffPages(tiff, path.parent, dtype)
                with closing(pages):
                    yield pages
        else:
            yield _PngPage(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _PngPage(Pages):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[Rows] = []

    def begin(self, size: PageSize) -> None:
        self._rows = []

    def append(self, rows: Rows) -> None:
        self._rows.append(rows)

    def end(self) -> None:
        Image.fromarray(np.concatenate(self._rows)).save(self._path, "PNG")


class _TiffPages(Pages):
    """Pages of a TIFF; a large one is tiled, has smaller copies, and waits on the disk."""

    def __init__(self, tiff: tifffile.TiffWriter, folder: Path, dtype: np.dtype[Any]) -> None:
        self._tiff = tiff
        self._folder = folder
        self._dtype = dtype
        self._rows: list[Rows] = []
        self._spool: Spool | None = None
        self._open = ExitStack()

    def begin(self, size: PageSize) -> None:
        self._rows = []
        if is_large(*size):
            home = self._open.enter_context(TemporaryDirectory(prefix=".spool-", dir=self._folder))
            self._spool = Spool(Path(home), size, self._dtype)
            self._open.callback(self._spool.close)

    def append(self, rows: Rows) -> None:
        if self._spool is None:
            self._rows.append(rows)
        else:
            self._spool.append(rows)

    def end(self) -> None:
        if self._spool is None:
            # Without metadata of its own a page is one of a stack, not a series by itself.
            page = np.concatenate(self._rows)
            self._tiff.write(page, photometric="minisblack", compression="zlib", metadata=None)
        else:
            self._spool.write(self._tiff)
        self.close()

    def close(self) -> None:
        """Remove what waits on the disk."""
        self._open.close()
        self._spool = None


def _listed(inputs: Sequence[Path]) -> Iterator[Path]:
    for path in inputs:
        if not path.is_dir() or is_zarr(path):
            yield path
            continue
        names = [
            p.name for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
        ]
        images = [path / name for name in natural_sorted(names) if name[0] != "."]
        if not images:
            raise UsageError(
                f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)}); name files, or a folder of "
                f"them.",
                subject=path,
            )
        yield from images


def _plan(
    path: Path, out: Path, probabilities: bool, overlays: bool, ome_zarr: bool | None
) -> PlannedFile:
    file, _, inner = str(path).partition(":/")
    first = Plane(Path(file), inner, 0, 0)
    pages = page_sizes(first)
    name = path.stem.removesuffix(".ome")
    pictures = [f"{name}.png"]
    if len(pages) > 1:
        width = len(str(len(pages) - 1))
        pictures = [f"{name}/{number:0{width}}.png" for number in range(len(pages))]
    is_volume = is_zarr(Path(file)) if ome_zarr is None else ome_zarr
    if is_volume and len(set(pages)) > 1:
        raise UsageError(
            f"{path} holds slices of {len(set(pages))} sizes, and a volume has one; leave "
            f"--ome-zarr out.",
            subject=path,
        )
    several = ".tif" if len(pages) > 1 or is_large(*pages[0]) else ".png"
    suffix = path.suffix if path.suffix.lower() in _TIFF else several
    return PlannedFile(
        path,
        tuple(replace(first, index=place) for place in range(len(pages))),
        pages,
        out / f"{name}{OME_ZARR if is_volume else suffix}",
        out / "probabilities" / f"{name}{OME_ZARR if is_volume else '.tif'}"
        if probabilities
        else None,
        tuple(out / "overlays" / picture for picture in pictures) if overlays else (),
        out / f"{name}.objects.parquet" if is_volume else None,
    )
