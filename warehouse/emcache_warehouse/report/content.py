"""What a report consists of, before it is a page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from emcache.errors import WarehouseError
from emcache.storage.workspace import Workspace
from emcache_warehouse.charts.kinds import CHARTS
from emcache_warehouse.charts.theme import Whole
from emcache_warehouse.choice import Choice
from emcache_warehouse.report.lean import drop_unread_columns


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as a person reads them."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    """Which columns are numbers, set flush right."""
    left_out: int = 0
    """Rows that did not fit."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with what it shows, for those who do not see it."""

    name: str
    """Unique in the page; letters and hyphens."""
    caption: str
    spec: Mapping[str, Any]
    """Vega-Lite."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, with what it shows."""

    data: bytes
    """The picture's file."""
    caption: str
    """What stands below it."""
    alt: str
    """What it shows, for those who do not see it."""
    media: str = "image/png"
    """The kind of file."""


@dataclass(slots=True)
class Section:
    """One heading with what belongs below it."""

    name: str
    """Unique in the page; the target of links."""
    title: str
    notes: list[str] = field(default_factory=list)
    """Paragraphs."""
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def draw(self, name: str, workspace: Workspace, choice: Choice) -> None:
        """Add a chart of :data:`emcache_warehouse.charts.kinds.CHARTS`."""
        kind = CHARTS[name]
        self.add(f"chart-{name}", kind.caption, lambda: kind.draw(workspace, choice))

    def add(self, name: str, caption: str, chart: Callable[[], Whole]) -> None:
        """Add a chart, or the sentence that says which command fills it."""
        try:
            # Validating thousands of rows takes longer than drawing them.
            spec = drop_unread_columns(chart().to_dict(validate=False))
            self.figures.append(Figure(name, caption, spec))
        except WarehouseError as error:
            sentence = str(error)
            self.notes.append(sentence[0].upper() + sentence[1:])


def table_of(
    caption: str,
    frame: pl.DataFrame,
    columns: Mapping[str, str],
    most: int = 60,
    always: Collection[str] | None = None,
) -> Table:
    """Some columns of a frame under readable names.

    Args:
        caption: What it shows.
        frame: Rows.
        columns: Heading of each column shown.
        most: Rows shown; how many were left out is said.
        always: Columns that stay. Another one where all rows have the same value is said once, in
            the caption, so that the table is no wider than its page; None keeps every column.
    """
    if always is not None:
        same = [name for name in columns if name not in always and frame[name].n_unique() == 1]
        # Nothing is said of what no row has: nothing accepted, nothing seen.
        facts = [
            f"{columns[name]} {in_words(frame[name][0])}"
            for name in same
            if frame[name][0] not in (None, 0)
        ]
        caption += f"; throughout: {', '.join(facts)}" if facts else ""
        columns = {name: words for name, words in columns.items() if name not in same}
    shown = frame.head(most)
    return Table(
        caption,
        list(columns.values()),
        [[in_words(value) for value in row] for row in shown.select(list(columns)).rows()],
        [frame.schema[name].is_numeric() for name in columns],
        frame.height - shown.height,
    )


def in_words(value: object) -> str:
    """One value as a cell shows it."""
    match value:
        case None:
            return "\N{EN DASH}"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case int():
            return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case list():
            return ", ".join(in_words(item) for item in value)
        case _:
            return str(value)
