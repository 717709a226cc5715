"""What a layout lists: slices with their masks, each a plane of a file, in natural order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from emcache.errors import DatasetError

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key of ``name`` that compares runs of digits by their value.

    Ties (``07`` and ``7``) fall back to the text, so the order is total.
    """
    parts = _DIGITS.split(name)
    # Splitting by one group leaves text at even places and digits at odd ones.
    return tuple(
        (0, int(part), part) if place % 2 else (1, 0, part) for place, part in enumerate(parts)
    )


def natural_sorted(names: Iterable[str]) -> list[str]:
    """``names`` in natural order."""
    return sorted(names, key=natural_key)


AXES = ("z", "y", "x")
"""Axes of a volume as arrays hold them: sections, rows, columns."""


class Part(NamedTuple):
    """A rectangle of a picture, in pixels."""

    row: int
    """First row."""
    column: int
    """First column."""
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.row},{self.column}+{self.rows}x{self.columns}"

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts it out of an array of rows and columns."""
        return (
            slice(self.row, self.row + self.rows),
            slice(self.column, self.column + self.columns),
        )


@dataclass(frozen=True, slots=True)
class Plane:
    """One picture: a file by itself, one plane of a volume, or a part of either."""

    path: Path
    """Absolute path of the file, or of a Zarr folder."""
    inner: str = ""
    """Path of the array within a container (HDF5, Zarr); empty elsewhere."""
    axis: int = 0
    """Axis that the volume is sliced along, an index into :data:`AXES`."""
    index: int | None = None
    """Position along that axis; None for the only picture of a file."""
    part: Part | None = None
    """Which part of it; None for all."""

    @property
    def volume(self) -> tuple[Path, str, int]:
        """What it shares with the other planes of its volume."""
        return self.path, self.inner, self.axis

    @property
    def stack(self) -> tuple[Path, ...] | tuple[Path, str, int]:
        """What it shares with the planes before and behind it: its folder, or its volume."""
        return (self.path.parent,) if self.index is None else self.volume

    def below(self, root: Path) -> str:
        """Its name relative to a dataset's root: ``raw/00.tif``, or ``raw.h5:/volume#z=3``."""
        return self._named(self.path.relative_to(root).as_posix())

    def __str__(self) -> str:
        return self._named(str(self.path))

    def _named(self, path: str) -> str:
        inner = f":/{self.inner}" if self.inner else ""
        place = "" if self.index is None else f"#{AXES[self.axis]}={self.index}"
        part = "" if self.part is None else f"@{self.part}"
        return f"{path}{inner}{place}{part}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One slice as a layout lists it."""

    id: str
    """Name of the slice within the dataset."""
    image: Plane
    """Where its pixels are."""
    mask: Plane | None
    """Where its mask is, or None where the slice has no label."""
    split: str | None
    """``train``, ``test``, another name, or None in an unlabelled folder."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a layout found."""

    entries: tuple[Entry, ...]
    pairing: str
    """The pairing rule in words."""
    voxel_size_nm: tuple[float, float, float] | None
    """Between sections, rows and columns, in nanometres; None where unknown."""


_NUMBER = re.compile(r"[0-9]+")


def thin(listing: Listing, every: int, name: str) -> Listing:
    """A listing of the slices whose number is a multiple of ``every``.

    The number is the last one in a slice's name: 12 in ``test/12`` and in ``stack.tif/12``.

    Args:
        listing: All slices.
        every: The step, at least 2.
        name: What it is a listing of, for errors.

    Raises:
        DatasetError: A slice has no number in its name, or no number is a multiple.
    """
    numbers = {entry.id: _NUMBER.findall(entry.id) for entry in listing.entries}
    nameless = next((slice_id for slice_id, found in numbers.items() if not found), None)
    if nameless is not None:
        raise DatasetError(
            f"slice {nameless} of {name} has no number in its name; expected one in each, to take "
            f"those whose number is a multiple of {every}: leave --every out, or choose files that "
            f"have one with --images.",
            subject=nameless,
        )
    kept = tuple(e for e in listing.entries if int(numbers[e.id][-1]) % every == 0)
    if not kept:
        raise DatasetError(
            f"no slice of {name} has a number that is a multiple of {every}; expected some: give "
            f"--every a smaller number, or leave it out.",
            subject=str(every),
        )
    words = f"{listing.pairing}; only slices whose number is a multiple of {every}"
    return replace(listing, entries=kept, pairing=words)
