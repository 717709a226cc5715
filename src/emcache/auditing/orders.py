"""Orders that people and programs confuse, and the name of the one that explains what was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from emcache.auditing.scratch import AS_THEY_ARE

ANOTHER_ORDER = "another order"
"""The cause where another pairing fits and none of the known orders explains it."""

SOME_EXCHANGED = "some masks exchanged"
"""The cause where a few slices have each other's masks."""

MOST_SHIFT = 5
"""Masks that are off by up to so many slices are looked for."""

_EXPLAINED = 0.8
_SHORTEST_RUN = 3
_FEWEST_IN_GROUP = 7
_MOST_GROUPS = 8
_NUMBERS = ("", "one", "two", "three", "four", "five")
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Order:
    """An order in which masks might stand beside images."""

    name: str
    """``string order``, ``reversed``, ``shifted by one in split test`` and so on."""
    masks: Int64[np.ndarray, " image"]
    """For each image the place of the mask that is then the right one; -1 outside the scope."""
    orientation: str = AS_THEY_ARE
    everywhere: bool = True
    """Whether it is meant of the whole dataset, or of one split or folder."""
    step: int = 0
    """Of a shift, by how many slices."""

    @property
    def is_testable(self) -> bool:
        """Whether it has slices enough to be compared with the declared order by itself."""
        return self.everywhere or len(self.images) >= _FEWEST_IN_GROUP

    @property
    def images(self) -> Int64[np.ndarray, " known"]:
        """The images in its scope."""
        return np.flatnonzero(self.masks >= 0)


@dataclass(frozen=True, slots=True)
class Scope:
    """Slices that may have been mistaken together, as lists that were each ordered by itself."""

    suffix: str
    """What a cause's name ends in, as `` in split test``."""
    groups: tuple[tuple[int, ...], ...]


def scopes(images: Sequence[str], splits: Sequence[str]) -> list[Scope]:
    """All slices; folder by folder; each split and each folder by itself, unless they are many.

    Args:
        images: Files of the images, as paths below the root.
        splits: The split of each.
    """
    everything = tuple(range(len(images)))
    found = [Scope("", (everything,))]
    folders = _grouped([_folder(name) for name in images])
    by_split = _grouped(list(splits))
    found += [Scope("", tuple(each.values())) for each in (folders, by_split) if len(each) > 1]
    seen = {everything}
    for kind, groups in (("split", by_split), ("folder", folders)):
        if len(groups) > _MOST_GROUPS:
            continue
        for name, places in groups.items():
            if places not in seen:
                seen.add(places)
                found.append(Scope(f" in {kind} {name}", (places,)))
    return found


def known_orders(
    images: Sequence[str],
    masks: Sequence[str],
    splits: Sequence[str],
    orientations: Sequence[str] = (),
    chosen: Sequence[int] | None = None,
) -> list[Order]:
    """Every known way in which the declared pairing may be wrong, the simplest first.

    Args:
        images: Files of the images, in the order of the declared pairing.
        masks: Files of the masks declared for them.
        splits: The split of each image.
        orientations: Ways in which masks may be turned.
        chosen: The places of those that orders are wanted for, where some are left out; what
            should have the mask of one left out is out of scope.
    """
    count = len(images)
    places = np.arange(count) if chosen is None else np.array(chosen)
    back = np.full(count + 1, _UNKNOWN)
    back[places] = np.arange(len(places))
    found: dict[tuple[bytes, str], Order] = {}

    def add(name: str, scope: Scope, masks: Int64[np.ndarray, " image"], **more: Any) -> None:
        order = back[masks[places]]
        known = order >= 0
        moved = (order[known] != np.flatnonzero(known)).any()
        if known.any() and (moved or "orientation" in more):
            key = order.tobytes(), str(more.get("orientation"))
            everywhere = not scope.suffix
            found.setdefault(
                key, Order(f"{name}{scope.suffix}", order, everywhere=everywhere, **more)
            )

    for scope in scopes(images, splits):
        for name, order in _permutations(scope.groups, images, masks):
            add(name, scope, order)
            add(name, scope, _inverse(order))
        for step in range(1, MOST_SHIFT + 1):
            for signed in (step, -step):
                order = _shifted(scope.groups, signed, count)
                add(f"shifted by {_NUMBERS[step]}", scope, order, step=step)
        for orientation in orientations:
            if orientation != AS_THEY_ARE:
                order = _within(scope.groups, list, count)
                add(orientation, scope, order, orientation=orientation)
    for name, order in _exchanges(_grouped(list(splits)), count):
        add(name, Scope("", ()), order)
    return list(found.values())


def explaining_order(agreed: Int64[np.ndarray, " image"], orders: Sequence[Order]) -> Order | None:
    """The first of the known orders that explains which masks were found.

    Args:
        agreed: For each image the place of the mask that fits it; -1 where that is not known.
        orders: From :func:`known_orders`.
    """
    known = agreed >= 0
    moved = known & (agreed != np.arange(len(agreed)))
    for order in orders:
        if order.orientation != AS_THEY_ARE:
            continue
        right = agreed == order.masks
        inside = order.masks >= 0
        # Slices at the ends of a shifted stack have no mask left, or wrap around.
        explained = (right & moved).sum() >= _EXPLAINED * max(moved.sum(), 1)
        if explained and right[known & inside].mean() >= _EXPLAINED:
            return order
    return None


def explain(
    agreed: Int64[np.ndarray, " image"], orders: Sequence[Order], scope_list: Sequence[Scope]
) -> str | None:
    """What explains which masks were found, in words; None where none were moved.

    Args:
        agreed: For each image the place of the mask that fits it; -1 where that is not known.
        orders: From :func:`known_orders`.
        scope_list: From :func:`scopes`.
    """
    known = agreed >= 0
    moved = known & (agreed != np.arange(len(agreed)))
    if not moved.any():
        return None
    if (order := explaining_order(agreed, orders)) is not None:
        return order.name
    return _cyclic_shift(agreed) or _shifted_run(agreed) or _where(moved, known, scope_list)


def _cyclic_shift(agreed: Int64[np.ndarray, " image"]) -> str | None:
    """One step for nearly all slices, the ends aside."""
    known = np.flatnonzero(agreed >= 0)
    values, times = np.unique(agreed[known] - known, return_counts=True)
    step = int(values[times.argmax()])
    enough = max(_EXPLAINED * (len(known) - abs(step)), len(known) / 2)
    if step and times.max() >= enough:
        return f"shifted by {_number_word(abs(step))}"
    return None


def _shifted_run(agreed: Int64[np.ndarray, " image"]) -> str | None:
    """One step from some slice to another: a slice was lost, or one mask too many."""
    moved = np.flatnonzero((agreed >= 0) & (agreed != np.arange(len(agreed))))
    first, last = int(moved[0]), int(moved[-1])
    run = agreed[first : last + 1]
    known = run >= 0
    steps = (run - np.arange(first, last + 1))[known]
    values, times = np.unique(steps, return_counts=True)
    step = int(values[times.argmax()])
    if step == 0 or times.max() < max(_SHORTEST_RUN, 2 * abs(step), _EXPLAINED * known.sum()):
        return None
    return f"shifted by {_number_word(abs(step))} from slice {first + 1} to {last + 1}"


def _where(
    moved: Bool[np.ndarray, " image"],
    known: Bool[np.ndarray, " image"],
    scope_list: Sequence[Scope],
) -> str:
    """Another order, everywhere or in one split or folder; or just some slices."""
    for scope in scope_list:
        if not scope.suffix:
            continue
        inside = np.zeros(len(moved), dtype=bool)
        inside[list(scope.groups[0])] = True
        if not (moved & ~inside).any() and 2 * moved.sum() >= (known & inside).sum():
            what = ANOTHER_ORDER if moved.sum() > 2 else SOME_EXCHANGED
            return f"{what}{scope.suffix}"
    return ANOTHER_ORDER if 2 * moved.sum() >= known.sum() else SOME_EXCHANGED


def _permutations(
    groups: Sequence[Sequence[int]], images: Sequence[str], masks: Sequence[str]
) -> Iterator[tuple[str, Int64[np.ndarray, " image"]]]:
    """Orders of lists of files: as text, and backwards."""
    count = len(images)
    for names in (images, masks):
        numbers = [_number(name) for name in names]
        if None not in numbers:
            yield (
                "string order",
                _within(groups, lambda g, n=numbers: sorted(g, key=lambda p: str(n[p])), count),  # type: ignore[misc]
            )
    # Files that are numbered as they stand, from 0 or from 1.
    for start in (0, 1):
        yield "string order", _within(groups, lambda g, s=start: _numbered(g, s), count)  # type: ignore[misc]
    yield "reversed", _within(groups, lambda group: list(group)[::-1], count)


def _shifted(groups: Sequence[Sequence[int]], step: int, count: int) -> Int64[np.ndarray, " image"]:
    """Each list moved by some steps; what has no mask then is out of scope."""
    order = np.full(count, _UNKNOWN)
    for group in groups:
        if len(group) > 2 * abs(step):
            for place, image in enumerate(group):
                if 0 <= place + step < len(group):
                    order[image] = group[place + step]
    return order


def _exchanges(
    groups: dict[str, tuple[int, ...]], count: int
) -> Iterator[tuple[str, Int64[np.ndarray, " image"]]]:
    """The masks of two splits of one size taken for each other."""
    for (one, first), (other, second) in combinations(groups.items(), 2):
        if len(first) == len(second):
            order = np.full(count, _UNKNOWN)
            order[list(first)], order[list(second)] = second, first
            yield f"the masks of splits {one} and {other} exchanged", order


def _inverse(order: Int64[np.ndarray, " image"]) -> Int64[np.ndarray, " image"]:
    known = np.flatnonzero(order >= 0)
    inverse = np.full(len(order), _UNKNOWN)
    inverse[order[known]] = known
    return inverse


def _within(
    groups: Sequence[Sequence[int]],
    reorder: Callable[[Sequence[int]], Sequence[int]],
    count: int,
) -> Int64[np.ndarray, " image"]:
    order = np.full(count, _UNKNOWN)
    for group in groups:
        order[list(group)] = reorder(group)
    return order


def _grouped(keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
    groups: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    return {key: tuple(places) for key, places in groups.items()}


def _numbered(group: Sequence[int], first: int) -> list[int]:
    order = sorted(range(len(group)), key=lambda place: str(place + first))
    return [group[place] for place in order]


def _number(name: str) -> int | None:
    """The last number in a file's name, or the place in its volume: ``raw.tif#z=3``."""
    file, _, place = name.partition("#")
    found: list[str] = re.findall(r"\d+", place or PurePosixPath(file).stem)
    return int(found[-1]) if found else None


def _folder(name: str) -> str:
    """The folder of a file, or the volume of a plane."""
    file, _, place = name.partition("#")
    return file if place else str(PurePosixPath(file).parent)


def _number_word(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
