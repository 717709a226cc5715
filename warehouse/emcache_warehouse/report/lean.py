"""Charts without the columns of their data that nothing in them reads: pages stay small."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_WORD = re.compile(r"\w+")


def drop_unread_columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A Vega-Lite chart whose named data have no column that the chart does not speak of.

    A column counts as read where its name stands as a word in any text of the chart: a field, a
    tooltip, an expression.
    """
    words = {
        word
        for name, part in spec.items()
        if name != "datasets"
        for text in _texts(part)
        for word in (text, *_WORD.findall(text))
    }
    kept = {
        name: [{key: row[key] for key in row if key in words} for row in rows]
        for name, rows in spec.get("datasets", {}).items()
    }
    return {**spec, "datasets": kept} if kept else dict(spec)


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _texts(value)
    elif isinstance(part, list):
        for value in part:
            yield from _texts(value)
