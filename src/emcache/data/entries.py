"""What a layout lists: slices with their masks."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from emcache.data.plane import Plane
from emcache.errors import DatasetError


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
