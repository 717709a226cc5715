"""Wrong pairings on purpose: what a mistake in the order of files does to a score.

Image and mask files that are numbered in different ways, sorted as text and zipped, meet the wrong
partners: ``mask0002.png`` stands third among the images, and ``10.png`` third among the masks. A
dataset with ``scramble`` in its table is paired that way, so that an experiment can measure what
comes of it. Its audit always fails, and scores that depend on it say that this was accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emcache.data.entries import Entry, Listing
from emcache.data.plane import Plane
from emcache.errors import DatasetError, UsageError

STRING_ORDER = "string"
"""The one order there is: both lists of files sorted as text."""


@dataclass(frozen=True, slots=True)
class Scramble:
    """Which slices are paired in string order."""

    split: str | None
    """The only split that is; None for every split."""

    @classmethod
    def parse(cls, text: str) -> Scramble:
        """Read ``string`` or ``string:SPLIT``.

        Raises:
            UsageError: Anything else.
        """
        order, colon, split = text.partition(":")
        if order != STRING_ORDER or (colon and not split):
            raise UsageError(
                f"scramble cannot be {text!r:.200}; expected {STRING_ORDER} or "
                f"{STRING_ORDER}:SPLIT, as {STRING_ORDER}:train.",
                subject=text,
            )
        return cls(split or None)

    @property
    def words(self) -> str:
        """What was done, for messages."""
        where = "" if self.split is None else f", in split {self.split} alone"
        return f"masks are paired in string order on purpose{where}"

    def apply(self, listing: Listing, name: str) -> Listing:
        """A listing whose masks stand beside the wrong slices.

        Each split is a list of its own, so that no mask of a test slice comes to a training slice.

        Args:
            listing: Rightly paired.
            name: What it is a listing of, for errors.

        Raises:
            DatasetError: There is no such split, or string order changes nothing.
        """
        masks = {entry.id: entry.mask for entry in listing.entries}
        splits = dict.fromkeys(e.split for e in listing.entries if e.mask is not None)
        if self.split is not None and self.split not in splits:
            known = ", ".join(split for split in splits if split)
            raise DatasetError(
                f"{name} has no labelled slice in split {self.split!r:.200}, which scramble names; "
                f"known: {known or 'none'}.",
                subject=self.split,
            )
        for split in splits if self.split is None else (self.split,):
            masks |= _in_string_order([e for e in listing.entries if e.mask and e.split == split])
        entries = tuple(replace(entry, mask=masks[entry.id]) for entry in listing.entries)
        moved = sum(new.mask != old.mask for new, old in zip(entries, listing.entries, strict=True))
        if not moved:
            raise DatasetError(
                f"the files of {name} pair rightly in string order, too; expected names that do "
                f"not: leave scramble out.",
                subject=name,
            )
        words = f"{listing.pairing}; then {self.words}: {moved} slices have another slice's mask"
        return replace(listing, entries=entries, pairing=words)


def _in_string_order(entries: Sequence[Entry]) -> dict[str, Plane | None]:
    """The mask that each slice gets where both lists are sorted as text and zipped."""
    images = sorted(entries, key=lambda entry: _text(entry.image))
    masks = sorted((entry.mask for entry in entries if entry.mask is not None), key=_text)
    return {image.id: mask for image, mask in zip(images, masks, strict=True)}


def _text(plane: Plane) -> tuple[Path, str, str]:
    """What a plane is sorted by: its folder, its file's name, and its page written in digits."""
    return plane.path.parent, plane.path.name, "" if plane.index is None else str(plane.index)
