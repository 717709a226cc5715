"""What a layout lists: slices with their masks."""

from __future__ import annotations

from dataclasses import dataclass

from emcache.data.plane import Plane


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
