"""Fewer slices of a stack: those whose number is a multiple of a step.

Neighbours in a stack are nearly the same slice, and every fourth trains in a quarter of the time.
Slices are chosen by the number in their names and not by their position, so that a download with
gaps gives those of the same numbers as the whole one.
"""

from __future__ import annotations

import re
from dataclasses import replace

from emcache.data.entries import Listing
from emcache.errors import DatasetError

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
