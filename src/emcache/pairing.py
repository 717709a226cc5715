"""Pairing slices with masks by a declared rule.

There is no fallback: a leftover on either side is an error that names it. Lists zipped by position
after a string sort are how a mask meets another slice's image without anyone noticing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

from emcache.errors import PairingError
from emcache.natural import natural_sorted

_NUMBER = re.compile(r"[0-9]+")
_NAMED_LEFTOVERS = 3
_Item = TypeVar("_Item")


class Rule(StrEnum):
    """How a slice finds its mask."""

    STEM = "stem"
    """Same file name without its ending."""
    NUMBER = "number"
    """Same value of the one number in the file name."""
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
    key = _number if rule is Rule.NUMBER else _stem
    mask_key = partial(_stem_without, suffix) if rule is Rule.SUFFIX else key
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


def _what_else(images: Sequence[str], masks: Sequence[str], rule: Rule) -> str:
    """What to do about leftovers on both sides; a suffix that all masks have is named."""
    stems = {_stem(image) for image in images}
    rests = {
        name[len(stem) :]
        for name in map(_stem, masks)
        if (stem := max((s for s in stems if name.startswith(s)), key=len, default=None))
    }
    if rule is Rule.STEM and len(rests) == 1 and len(images) == len(masks):
        return f"give --mask-suffix {rests.pop()}"
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


def _number(path: str) -> str:
    numbers = _NUMBER.findall(PurePosixPath(path).stem)
    if len(numbers) != 1:
        raise PairingError(
            f"{path} has {len(numbers)} numbers in its name; --pair number needs exactly one: "
            f"rename it, or choose another --pair rule.",
            subject=path,
        )
    return str(int(numbers[0]))


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
