"""Why masks may stand beside the wrong slices: orders that people and programs confuse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Int64

_EXPLAINED = 0.8
"""Share of the slices that a cause must explain."""


def likely_cause(
    assignment: Int64[np.ndarray, " image"], images: Sequence[str], masks: Sequence[str]
) -> str | None:
    """The order that explains an assignment, or None.

    Args:
        assignment: For each image the place of the mask that fits it.
        images: Files of the images, in the order of the declared pairing.
        masks: Files of the masks declared for them, in the same order.
    """
    count = len(assignment)
    if (assignment == np.arange(count)).all():
        return None
    for cause, expected in _orders(images, masks):
        for order in (expected, np.argsort(expected)):
            known = order >= 0
            if (order[known] == np.flatnonzero(known)).all():
                continue
            if (assignment == order).mean() >= _EXPLAINED:
                return cause
    shifts = assignment - np.arange(count)
    return _shift(shifts, count)


def _shift(shifts: Int64[np.ndarray, " image"], count: int) -> str | None:
    """One step for nearly all slices, the ends aside."""
    values, times = np.unique(shifts, return_counts=True)
    step = int(values[times.argmax()])
    # Of a stack shifted by d, d slices at one end have no mask left, or wrap around.
    if step and times.max() >= _EXPLAINED * (count - abs(step)):
        words = {1: "one", 2: "two", 3: "three"}.get(abs(step), str(abs(step)))
        return f"shifted by {words}"
    return None


def _orders(
    images: Sequence[str], masks: Sequence[str]
) -> Iterator[tuple[str, Int64[np.ndarray, " image"]]]:
    """Orders that masks might have been taken in, whole or folder by folder."""
    for groups in _groupings(images):
        for names in (images, masks):
            numbers = [_number(name) for name in names]
            if None not in numbers:
                yield "string order", _within(groups, lambda g, n=numbers: _as_text(g, n))  # type: ignore[misc]
        # Files that are numbered as they stand, from 0 or from 1.
        for first in (0, 1):
            yield "string order", _within(groups, lambda g, f=first: _numbered(g, f))  # type: ignore[misc]
        yield "reversed", _within(groups, lambda group: group[::-1])


def _groupings(images: Sequence[str]) -> Iterator[list[list[int]]]:
    yield [list(range(len(images)))]
    folders: dict[str, list[int]] = {}
    for place, name in enumerate(images):
        folders.setdefault(str(PurePosixPath(name).parent), []).append(place)
    if len(folders) > 1:
        yield list(folders.values())


def _within(
    groups: Sequence[Sequence[int]], reorder: Callable[[Sequence[int]], Sequence[int]]
) -> Int64[np.ndarray, " image"]:
    order = np.zeros(sum(len(group) for group in groups), dtype=np.int64)
    for group in groups:
        order[list(group)] = reorder(group)
    return order


def _as_text(group: Sequence[int], numbers: Sequence[int | None]) -> list[int]:
    return sorted(group, key=lambda place: str(numbers[place]))


def _numbered(group: Sequence[int], first: int) -> list[int]:
    order = sorted(range(len(group)), key=lambda place: str(place + first))
    return [group[place] for place in order]


def _number(name: str) -> int | None:
    """The last number in a file's name."""
    found: list[str] = re.findall(r"\d+", PurePosixPath(name).stem)
    return int(found[-1]) if found else None
