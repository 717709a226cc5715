"""What every reader offers: planes of values, as the file stores them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from emcache.data.plane import AXES, Part
from emcache.errors import ImageError

VoxelSize = tuple[float, float, float]
"""Along z, y and x, in nanometres."""

MOST_PIXELS = 1 << 30
"""Larger planes are refused: a small file may claim any size."""

MOST_PLANES = 1 << 20
"""Volumes of more planes are refused."""

MOST_CHUNKS = 1 << 18
"""Planes that lie in more chunks are refused."""

# What a library notes of each chunk that it looks for, stored or not, takes some 6 kB.
_CHUNKS_AT_ONCE = 1 << 12

_NUMBERS = "biuf"

NM_PER_UNIT = {
    "angstrom": 0.1,
    "å": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    r"\u00b5m": 1e3,  # ImageJ's own spelling
    "micron": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "millimetre": 1e6,
}
"""Nanometres in each unit of length that files use."""


class PageSize(NamedTuple):
    """Size of one plane."""

    rows: int
    columns: int


class Volume(ABC):
    """An open image file: planes along z, and along other axes where all have one size."""

    def __init__(
        self,
        name: str,
        sizes: Sequence[PageSize],
        dtype: np.dtype[Any],
        voxel_size_nm: VoxelSize | None,
    ) -> None:
        if dtype.kind not in _NUMBERS:
            raise ImageError(
                f"{name} has values of type {dtype}; expected numbers: save it as grey or as "
                f"labels.",
                subject=name,
            )
        if not sizes or any(0 in size for size in set(sizes)):
            raise ImageError(
                f"{name} holds no pixels; expected at least one plane of rows and columns: restore "
                f"the file.",
                subject=name,
            )
        self.name = name
        """What to call it in errors."""
        self.sizes = tuple(sizes)
        """Rows and columns of each plane along z."""
        self.dtype = dtype
        """Type of the values, as stored."""
        self.voxel_size_nm = voxel_size_nm
        """As the file states it; None where it does not."""

    def sizes_along(self, axis: int) -> tuple[PageSize, ...]:
        """Rows and columns of each plane along an axis of :data:`emcache.data.plane.AXES`.

        Raises:
            ImageError: Another axis than z, of pages that differ in size.
        """
        if axis == 0:
            return self.sizes
        if len(set(self.sizes)) > 1:
            raise ImageError(
                f"{self.name} holds pages of {len(set(self.sizes))} sizes; expected one size to "
                f"slice it along {AXES[axis]}: slice it along z.",
                subject=self.name,
            )
        rows, columns = self.sizes[0]
        planes, across = (rows, columns) if axis == 1 else (columns, rows)
        check_count(self.name, planes)
        return (PageSize(len(self.sizes), across),) * planes

    def read(
        self, axis: int, index: int, part: Part | None = None
    ) -> Shaped[np.ndarray, "row col *channel"]:
        """The values of one plane, in the machine's byte order; a third axis holds colours.

        Args:
            axis: That the volume is sliced along.
            index: Position of the plane along it.
            part: Only this part, for which formats that can do without read nothing else.

        Raises:
            ImageError: No such plane, one of too many pixels, or one that cannot be read.
        """
        sizes = self.sizes_along(axis)
        if not 0 <= index < len(sizes):
            raise ImageError(
                f"{self.name} has no plane {AXES[axis]}={index}; it holds {len(sizes)}: run the "
                f"command again if the file changed.",
                subject=self.name,
            )
        size = sizes[index]
        if size.rows * size.columns > MOST_PIXELS:
            raise ImageError(
                f"{self.name} claims {size.rows} x {size.columns} pixels; expected at most "
                f"{MOST_PIXELS}: cut it into smaller images.",
                subject=self.name,
            )
        if part is not None and not (
            0 <= part.row < part.row + part.rows <= size.rows
            and 0 <= part.column < part.column + part.columns <= size.columns
        ):
            raise ImageError(
                f"{self.name} has a plane of {size.rows} x {size.columns} pixels, and no part "
                f"{part} of it; run the command again if the file changed.",
                subject=self.name,
            )
        try:
            values = self._read(axis, index) if part is None else self._read_part(axis, index, part)
        except MemoryError:
            raise too_large(self.name) from None
        # A mapped file is read here, not when its values are used: PyTorch wants to write to them.
        return np.require(values, values.dtype.newbyteorder("="), ["E", "W"])

    @abstractmethod
    def _read(self, axis: int, index: int) -> np.ndarray:
        """One plane that is known to be there."""

    def _read_part(self, axis: int, index: int, part: Part) -> np.ndarray:
        """A part of it."""
        return self._read(axis, index)[part.slices]


class ArrayVolume(Volume):
    """A volume that a library shows as an array whose parts are read when they are asked for."""

    def __init__(self, name: str, array: Any, voxel_size_nm: VoxelSize | None) -> None:
        shape = tuple(int(side) for side in array.shape)
        leading, kept = shape[:-3], shape[-3:]
        if len(shape) < 2 or 0 in shape or any(side != 1 for side in leading):
            raise ImageError(
                f"{name} has the shape {' x '.join(map(str, shape)) or 'of a single value'}; "
                f"expected a volume of sections x rows x columns with one channel: name another "
                f"array, or save one channel of it.",
                subject=name,
            )
        self._array = array
        self._chunks: tuple[int, ...] = getattr(array, "chunks", None) or shape
        self._lead: tuple[Any, ...] = (0,) * len(leading)
        self._flat = len(kept) == 2
        rows, columns = kept[-2:]
        planes = 1 if self._flat else kept[0]
        check_count(name, planes)
        super().__init__(
            name, (PageSize(rows, columns),) * planes, np.dtype(array.dtype), voxel_size_nm
        )

    def _read(self, axis: int, index: int) -> np.ndarray:
        if self._flat:
            plane = self._gather([slice(None)] * 2)
            return plane if axis == 0 else plane[None].take(index, axis=axis)
        place: list[Any] = [slice(None)] * 3
        place[axis] = index
        return self._gather([*self._lead, *place])

    def _read_part(self, axis: int, index: int, part: Part) -> np.ndarray:
        if self._flat and axis:
            return super()._read_part(axis, index, part)
        place: list[Any] = [*self._lead, *part.slices]
        if not self._flat:
            place.insert(len(self._lead) + axis, index)
        return self._gather(place)

    def _gather(self, place: list[Any]) -> np.ndarray:
        """The values of a place, of which two entries are slices, some chunks at a time."""
        axes = [axis for axis, part in enumerate(place) if isinstance(part, slice)]
        spans = [range(*place[axis].indices(self._array.shape[axis])) for axis in axes]
        sides = [len(span) for span in spans]
        counts = [
            (span.stop - 1) // self._chunks[axis] - span.start // self._chunks[axis] + 1
            for span, axis in zip(spans, axes, strict=True)
        ]
        if prod(counts) > MOST_CHUNKS:
            raise ImageError(
                f"{self.name} is stored in {prod(counts)} chunks a plane; expected at most "
                f"{MOST_CHUNKS}: save it in larger chunks.",
                subject=self.name,
            )
        if prod(counts) <= _CHUNKS_AT_ONCE:
            return np.asarray(self._array[tuple(place)])
        # Strips across the side of more chunks.
        cut = int(counts[1] > counts[0])
        step = max(1, _CHUNKS_AT_ONCE // counts[1 - cut]) * self._chunks[axes[cut]]
        values = np.empty(sides, self._array.dtype)
        first = spans[cut].start
        for start in range(0, sides[cut], step):
            strip = slice(start, min(start + step, sides[cut]))
            place[axes[cut]] = slice(first + strip.start, first + strip.stop)
            values[(slice(None),) * cut + (strip,)] = self._array[tuple(place)]
        return values


def check_count(name: str, planes: int) -> None:
    """Refuse more planes than could be listed; a header of a few bytes may claim any number.

    Raises:
        ImageError: With the number.
    """
    if planes > MOST_PLANES:
        raise ImageError(
            f"{name} claims {planes} planes; expected at most {MOST_PLANES}: cut it into smaller "
            f"volumes.",
            subject=name,
        )


def check_chunks(name: str, chunks: Sequence[int]) -> None:
    """Refuse chunks of which one alone, however little of it is wanted, would fill the memory.

    Raises:
        ImageError: With the chunk's shape.
    """
    if prod(chunks) > MOST_PIXELS:
        raise ImageError(
            f"{name} is stored in chunks of {' x '.join(map(str, chunks))} values; expected at "
            f"most {MOST_PIXELS} in each: save it in smaller chunks.",
            subject=name,
        )


def too_large(name: str) -> ImageError:
    """What to say of an image that memory does not hold."""
    return ImageError(
        f"{name} needs more memory than there is; cut it into smaller images.", subject=name
    )


def missing_file(path: Path) -> ImageError:
    """What to say of a file that is not there."""
    return ImageError(f"{path} is not there; check its name.", subject=path)


def require(module: str, extra: str, path: Path) -> Any:
    """Import the library of an optional format.

    Raises:
        ImageError: It is not installed; the message is the line that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise ImageError(
            f"{path} needs {module}, which is not installed; install it with "
            f"`pip install 'emcache[{extra}]'`.",
            subject=path,
        ) from None
