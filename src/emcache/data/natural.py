"""Natural order: ``2.png`` before ``10.png``, as a person counts.

String order puts ``10.png`` third of ``0.png ... 19.png``; lists sorted that way and zipped pair
slices with other slices' masks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

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
