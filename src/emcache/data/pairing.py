"""Pairing slices with masks by a declared rule.

There is no fallback: a leftover on either side is an error that names it. Lists zipped by position
after a string sort are how a mask meets another slice's image without anyone noticing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from emcache.data.plane import Entry, Listing, Plane, natural_sorted
from emcache.errors import DatasetError, PairingError, UsageError

_NUMBER = re.compile(r"[0-9]+")
_NAMED_LEFTOVERS = 3
_Item = TypeVar("_Item")


class Rule(StrEnum):
    """How a slice finds its mask."""

    STEM = "stem"
    """Same file name without its ending."""
    NUMBER = "number"
    """Same value of the one number in the file name, or of the one that differs between files."""
    SUFFIX = "suffix"
    """Same file name without its ending, but for a suffix of the mask's, as ``_label``."""
    ORDER = "order"
    """Same position in natural order; the counts must be equal."""

    @property
    def words(self) -> str:
        """The rule in a sentence, for people."""
        return {
            Rule.STEM: "an image and its mask have the same file name without its ending",
            Rule.NUMBER: "an image and its mask have the same one number in their file names",
            Rule.SUFFIX: "a mask has the file name of its image with a suffix before the ending",
            Rule.ORDER: "images and masks, equally many, both in natural order, are paired by "
            "position",
        }[self]


def pair(
    images: Sequence[str], masks: Sequence[str], rule: Rule, suffix: str = ""
) -> list[tuple[str, str]]:
    """Pair every image with exactly one mask, in the images' natural order.

    Args:
        images: Paths relative to the dataset's root, ``/`` between folders.
        masks: Likewise.
        rule: The declared rule.
        suffix: Of the masks' names, where the rule is about it.

    Returns:
        ``(image, mask)`` for every image.

    Raises:
        PairingError: A leftover on either side, two files under one key, or a name the rule
            cannot read; the files are named.
    """
    if rule is Rule.ORDER:
        return pair_by_position(natural_sorted(images), natural_sorted(masks))
    key: Callable[[str], str] = _stem
    mask_key: Callable[[str], str] = partial(_stem_without, suffix) if suffix else _stem
    if rule is Rule.NUMBER:
        key, mask_key = _numbers(images, "image").__getitem__, _numbers(masks, "mask").__getitem__
    image_of = _index(images, key, "image", rule)
    mask_of = _index(masks, mask_key, "mask", rule)
    alone = [image_of[k] for k in image_of if k not in mask_of]
    orphans = [mask_of[k] for k in mask_of if k not in image_of]
    if alone or orphans:
        parts = []
        if alone:
            parts.append(f"{_listing('image', alone)} without a mask")
        if orphans:
            parts.append(f"{_listing('mask', orphans)} without an image")
        raise PairingError(
            f"{' and '.join(parts)}; expected that {rule.words}: add or remove the files, or "
            f"{_what_else(alone, orphans, rule)}.",
            subject=(alone, orphans),
        )
    by_image = {image: mask_of[k] for k, image in image_of.items()}
    return [(image, by_image[image]) for image in natural_sorted(images)]


def pair_by_position(images: Sequence[_Item], masks: Sequence[_Item]) -> list[tuple[_Item, _Item]]:
    """Pair what stands at the same place in two ordered lists.

    Raises:
        PairingError: They are not equally long.
    """
    if len(images) != len(masks):
        raise PairingError(
            f"found {len(images)} images and {len(masks)} masks; pairing by order needs equally "
            f"many: add or remove some, or choose another --pair rule.",
            subject=(len(images), len(masks)),
        )
    return list(zip(images, masks, strict=True))


def suffixes_behind(names: Sequence[str], others: Sequence[str]) -> Counter[str]:
    """How many of the others are one of the names followed by a suffix, for each suffix.

    Args:
        names: Paths; their file names without the ending count.
        others: Likewise.
    """
    stems = {_stem(name) for name in names}
    longer = {_stem(other) for other in others}
    return Counter(
        stem[cut:] for stem in longer for cut in range(1, len(stem)) if stem[:cut] in stems
    )


def _what_else(images: Sequence[str], masks: Sequence[str], rule: Rule) -> str:
    """What to do about leftovers on both sides: another rule that pairs them all."""
    if rule is Rule.STEM and len(images) == len(masks):
        for suffix, count in suffixes_behind(images, masks).items():
            if count == len(masks):
                return f"give --mask-suffix {suffix}"
        with suppress(PairingError):
            pair(images, masks, Rule.NUMBER)
            return "give --pair number, which pairs them all"
        return (
            "choose another --pair rule (order goes by position, and `emcache dataset audit` tells "
            "whether that was right)"
        )
    return "choose another --pair rule"


def _stem_without(suffix: str, path: str) -> str:
    stem = _stem(path)
    if not stem.endswith(suffix) or stem == suffix:
        raise PairingError(
            f"the name of mask {path} does not end in {suffix!r}; expected that of every mask to: "
            f"narrow --masks, or choose another --mask-suffix.",
            subject=path,
        )
    return stem.removesuffix(suffix)


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _numbers(paths: Sequence[str], kind: str) -> dict[str, str]:
    """The number that each name goes by: its only one, or the one that differs between names."""
    found = {path: [int(number) for number in _NUMBER.findall(_stem(path))] for path in paths}
    by_count = {len(numbers): path for path, numbers in found.items()}
    if len(by_count) > 1:
        (fewer, one), (more, other) = sorted(by_count.items())[:2]
        what = f"{kind} {one} has {_counted(fewer)} in its name, and {other} has {more}"
    else:
        places = [len({*values}) > 1 for values in zip(*found.values(), strict=True)]
        if len(places) == 1 or sum(places) == 1:
            place = places.index(True) if any(places) else 0
            return {path: str(numbers[place]) for path, numbers in found.items()}
        what = f"{kind} {paths[0]} has {_counted(len(places))} in its name"
        what += f", of which {sum(places) or 'none'} differ between {kind}s" if places else ""
    raise PairingError(
        f"{what}; --pair number needs one number in each name, or several of which one differs: "
        f"rename the files, or choose another --pair rule.",
        subject=paths[0],
    )


def _counted(number: int) -> str:
    return {0: "no number", 1: "1 number"}.get(number, f"{number} numbers")


def _index(
    paths: Sequence[str], key: Callable[[str], str], kind: str, rule: Rule
) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in paths:
        name = key(path)
        if name in found:
            raise PairingError(
                f"{kind}s {found[name]} and {path} both go by {name!r}; expected that "
                f"{rule.words}: rename one, or narrow the pattern.",
                subject=(found[name], path),
            )
        found[name] = path
    return found


def _listing(kind: str, paths: Sequence[str]) -> str:
    ordered = natural_sorted(paths)
    shown = ", ".join(ordered[:_NAMED_LEFTOVERS])
    more = len(ordered) - _NAMED_LEFTOVERS
    if len(ordered) == 1:
        return f"{kind} {shown}"
    return f"{len(ordered)} {kind}s ({shown}{f' and {more} more' if more > 0 else ''})"


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
