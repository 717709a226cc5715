"""Which slices are shown, where there are more than a page can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from emcache.data.dataset import Slice
from emcache.errors import DatasetError, UsageError

Pick = Literal["spread", "random", "worst", "median", "best"]
"""How slices are chosen: at even distances, by chance, or by a score."""
BY_SCORE: tuple[Pick, ...] = ("worst", "median", "best")
"""Those that need scores."""


def choose_slices(
    slices: Sequence[Slice],
    count: int,
    pick: Pick,
    scores: Mapping[str, float] | None = None,
    seed: int = 0,
) -> tuple[Slice, ...]:
    """Some slices of a dataset, in the dataset's order; all where there are no more.

    Args:
        slices: All of them.
        count: How many at most.
        pick: How they are chosen. ``worst``, ``median`` and ``best`` choose among the scored ones.
        scores: Of slices, by their names.
        seed: Of ``random``.

    Raises:
        UsageError: No slice has a score, and one is needed.
    """
    if pick in BY_SCORE:
        known = [place for place, item in enumerate(slices) if item.id in (scores or {})]
        if not known:
            raise UsageError(
                f"no slice has a score, so none is the {pick} one; score them with `emcache "
                f"evaluate`, or choose others by --pick spread.",
                subject=pick,
            )
        ranked = sorted(known, key=lambda place: ((scores or {})[slices[place].id], place))
        count = min(count, len(ranked))
        start = {"worst": 0, "best": len(ranked) - count}.get(pick, (len(ranked) - count) // 2)
        chosen = ranked[start : start + count]
    elif len(slices) <= count:
        chosen = list(range(len(slices)))
    elif pick == "random":
        chosen = list(np.random.default_rng(seed).permutation(len(slices))[:count])
    else:
        # The middles of equal stretches, so that neither end of a stack is preferred.
        chosen = [int((place + 0.5) * len(slices) / count) for place in range(count)]
    return tuple(slices[place] for place in sorted(chosen))


def named_slices(slices: Sequence[Slice], names: Sequence[str]) -> tuple[Slice, ...]:
    """The slices of these names, in the order of the names.

    Raises:
        DatasetError: There is no such slice.
    """
    by_name = {item.id: item for item in slices}
    for name in names:
        if name not in by_name:
            some = ", ".join(list(by_name)[:3])
            raise DatasetError(
                f"there is no slice {name!r}; expected a name as {some} ({len(by_name)} slices).",
                subject=name,
            )
    return tuple(by_name[name] for name in dict.fromkeys(names))
