"""Files of a prediction: what goes where, written page by page so that a stack needs no memory.

::

    DIR/NAME.tif                the mask: 0 and 255, as many pages as the input
    DIR/probabilities/NAME.tif  float32, 0 to 1
    DIR/overlays/NAME.png       the slice with the predicted outline; NAME/000.png ... for a stack
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Shaped, UInt8
from PIL import Image

from emcache.data.images import IMAGE_SUFFIXES, PageSize, page_sizes
from emcache.data.plane import Plane, natural_sorted
from emcache.data.volumes.zarr_array import is_zarr
from emcache.errors import UsageError

_TIFF = (".tif", ".tiff")
_PARTIAL = ".partial"
# Offsets in a classic TIFF have 32 bits; what compression saves is not relied on.
_CLASSIC_TIFF = 3_900_000_000


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

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Every file that will be written."""
        probability = () if self.probability is None else (self.probability,)
        return (self.mask, *probability, *self.overlays)


def plan_files(
    inputs: Sequence[Path], out: Path, *, probabilities: bool, overlays: bool, overwrite: bool
) -> tuple[PlannedFile, ...]:
    """Look at every page of every input and decide where its results go; nothing is written.

    Args:
        inputs: Image files and volumes (``FILE:/ARRAY`` in HDF5 and Zarr), and folders whose
            images are meant, in natural order.
        out: Folder of the results.
        probabilities: Whether they are asked for.
        overlays: Whether they are asked for.
        overwrite: Whether files that are there already may be replaced; inputs never are.

    Raises:
        UsageError: A folder without images, two results of one name, or one that would overwrite
            an input or, without leave, another file.
        ImageError: No image, or of a kind that is not a slice.
    """
    files = tuple(_plan(path, out, probabilities, overlays) for path in _listed(inputs))
    places: dict[Path, Path] = {}
    read = {file.input.resolve() for file in files}
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
            if path.exists() and not overwrite:
                raise UsageError(
                    f"{path} is there already; choose another --out, or replace it with "
                    f"--overwrite.",
                    subject=path,
                )
            places[path] = file.input
    return files


Write = Callable[[np.ndarray], None]
"""Takes the next page of a file."""


@dataclass(frozen=True, slots=True)
class Writers:
    """The open results of one input; see :func:`writers`."""

    mask: Write
    """Pages of 0 and 255."""
    probability: Write | None
    """Pages of float32; None where they were not asked for."""
    overlay: Write | None
    """Colour pictures; None where they were not asked for."""


@contextmanager
def writers(file: PlannedFile) -> Iterator[Writers]:
    """Open the results of one input; they take their names when the block ends, and not before."""
    pixels = sum(size.rows * size.columns for size in file.pages)
    with ExitStack() as stack:

        def opened(path: Path, item_bytes: int) -> Write:
            return stack.enter_context(_open(path, pixels * item_bytes))

        overlays = iter(file.overlays)

        def write_picture(page: UInt8[np.ndarray, "row col 3"]) -> None:
            stack.enter_context(_open(next(overlays), 0))(page)

        yield Writers(
            opened(file.mask, 1),
            None if file.probability is None else opened(file.probability, 4),
            write_picture if file.overlays else None,
        )


@contextmanager
def _open(
    path: Path, most_bytes: int
) -> Iterator[Callable[[Shaped[np.ndarray, "row col *channel"]], None]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    # A link of that name would be written through.
    partial.unlink(missing_ok=True)
    try:
        if path.suffix.lower() in _TIFF:
            with tifffile.TiffWriter(partial, bigtiff=most_bytes > _CLASSIC_TIFF) as tiff:

                def write(page: Shaped[np.ndarray, "row col *channel"]) -> None:
                    # Without metadata of its own a page is one of a stack, not a series by itself.
                    tiff.write(page, photometric="minisblack", compression="zlib", metadata=None)

                yield write
        else:
            yield lambda page: Image.fromarray(page).save(partial, "PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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


def _plan(path: Path, out: Path, probabilities: bool, overlays: bool) -> PlannedFile:
    file, _, inner = str(path).partition(":/")
    first = Plane(Path(file), inner, 0, 0)
    pages = page_sizes(first)
    several = ".tif" if len(pages) > 1 else ".png"
    suffix = path.suffix if path.suffix.lower() in _TIFF else several
    pictures = [f"{path.stem}.png"]
    if len(pages) > 1:
        width = len(str(len(pages) - 1))
        pictures = [f"{path.stem}/{number:0{width}}.png" for number in range(len(pages))]
    return PlannedFile(
        path,
        tuple(replace(first, index=place) for place in range(len(pages))),
        pages,
        out / f"{path.stem}{suffix}",
        out / "probabilities" / f"{path.stem}.tif" if probabilities else None,
        tuple(out / "overlays" / name for name in pictures) if overlays else (),
    )
