"""Files of a prediction: what goes where, written page by page so that a stack needs no memory.

::

    DIR/NAME.tif                the mask: 0 and 255, as many pages as the input
    DIR/probabilities/NAME.tif  float32, 0 to 1
    DIR/overlays/NAME.png       the slice with the predicted outline; NAME/000.png ... for a stack
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Shaped, UInt8
from PIL import Image

from emcache.errors import UsageError
from emcache.images import IMAGE_SUFFIXES, count_pages
from emcache.natural import natural_sorted

_TIFF = (".tif", ".tiff")
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One input and where its results go."""

    input: Path
    pages: int
    """Slices in the file."""
    mask: Path
    """TIFF for TIFF, PNG for all others."""
    probability: Path
    overlay: Path
    """A picture, or the folder of a stack's pictures."""


def plan_files(inputs: Sequence[Path], out: Path) -> tuple[PlannedFile, ...]:
    """Look at every input and decide where its results go; nothing is written.

    Args:
        inputs: Image files, and folders whose images are meant, in natural order.
        out: Folder of the results.

    Raises:
        UsageError: A folder without images, two inputs of one name, or a mask that would overwrite
            an input.
        ImageError: No image.
    """
    files = [_plan(path, out) for path in _listed(inputs)]
    places: dict[Path, Path] = {}
    read = {file.input.resolve() for file in files}
    for file in files:
        if file.mask.resolve() in read:
            raise UsageError(
                f"the mask of {file.input} would overwrite {file.mask}; choose another --out.",
                subject=file.input,
            )
        if file.mask in places:
            raise UsageError(
                f"{places[file.mask]} and {file.input} would both become {file.mask}; predict them "
                f"into different folders.",
                subject=file.input,
            )
        places[file.mask] = file.input
    return tuple(files)


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
    """Pictures in colour; None likewise."""


@contextmanager
def writers(file: PlannedFile, *, probabilities: bool, overlays: bool) -> Iterator[Writers]:
    """Open the results of one input; they take their names when the block ends, and not before."""
    with ExitStack() as stack:

        def opened(path: Path) -> Write:
            return stack.enter_context(_open(path))

        numbers = iter(range(file.pages))
        width = len(str(file.pages - 1))

        def write_picture(page: UInt8[np.ndarray, "row col 3"]) -> None:
            if file.pages == 1:
                path = file.overlay
            else:
                path = file.overlay / f"{next(numbers):0{width}}.png"
            with _open(path) as write:
                write(page)

        yield Writers(
            opened(file.mask),
            opened(file.probability) if probabilities else None,
            write_picture if overlays else None,
        )


@contextmanager
def _open(path: Path) -> Iterator[Callable[[Shaped[np.ndarray, "row col *channel"]], None]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        if path.suffix.lower() in _TIFF:
            with tifffile.TiffWriter(partial, bigtiff=False) as tiff:

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
        if not path.is_dir():
            yield path
            continue
        names = [p.name for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
        images = [path / name for name in natural_sorted(names) if name[0] != "."]
        if not images:
            raise UsageError(
                f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)}); name files, or a folder of "
                f"them.",
                subject=path,
            )
        yield from images


def _plan(path: Path, out: Path) -> PlannedFile:
    pages = count_pages(path)
    suffix = path.suffix if path.suffix.lower() in _TIFF else ".png"
    picture = Path(path.stem) if pages > 1 else Path(f"{path.stem}.png")
    return PlannedFile(
        path,
        pages,
        out / f"{path.stem}{suffix}",
        out / "probabilities" / f"{path.stem}.tif",
        out / "overlays" / picture,
    )
