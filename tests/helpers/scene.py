"""A chart as it is drawn: every mark of the scene, and the plots with their axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import vl_convert

from emcache_warehouse.charts.render import VEGA_LITE

PAGE = 900
"""Pixels that a chart may be wide."""
_SMALLEST_PLOT = 40


@dataclass(frozen=True)
class Mark:
    """One item of the scene, in the coordinates of the whole picture."""

    kind: str
    role: str
    x: float
    y: float
    width: float
    height: float
    fill: str | None
    stroke: str | None
    shape: str
    text: Any
    orient: str
    """Of the axis that it belongs to."""

    def holds(self, other: Mark) -> bool:
        """Whether another mark's anchor lies within this one."""
        return (
            self.x <= other.x <= self.x + self.width and self.y <= other.y <= self.y + self.height
        )

    @property
    def words(self) -> str:
        """The text with its lines one below the other."""
        return "\n".join(self.text) if isinstance(self.text, list) else str(self.text)


@dataclass
class Plot:
    """An area with axes, and what is drawn in it."""

    title: str
    """The nearest title above it, on one line."""
    marks: list[Mark]
    x_labels: list[Mark]
    y_labels: list[Mark]

    def column(self, mark: Mark) -> str:
        """The label below a mark."""
        middle = mark.x + mark.width / 2
        return min(self.x_labels, key=lambda label: abs(label.x - middle)).words

    def row(self, mark: Mark) -> str:
        """The label beside a mark."""
        middle = mark.y + mark.height / 2
        return min(self.y_labels, key=lambda label: abs(label.y - middle)).words

    @cached_property
    def x(self) -> Callable[[float], float]:
        """Where a number lies on the horizontal axis, by its labels."""
        return _scale([(label.words, label.x) for label in self.x_labels])

    @cached_property
    def y(self) -> Callable[[float], float]:
        """Where a number lies on the vertical axis, by its labels."""
        return _scale([(label.words, label.y) for label in self.y_labels])

    def at(self, x: float, y: float, **look: str) -> list[Mark]:
        """Marks whose anchor is at two numbers, to half a pixel."""
        x, y = self.x(x), self.y(y)
        return [
            mark
            for mark in self.marks
            if abs(mark.x - x) < 0.6
            and abs(mark.y - y) < 0.6
            and all(getattr(mark, name) == value for name, value in look.items())
        ]


class Scene:
    """A chart as drawn."""

    def __init__(self, chart: Any) -> None:
        drawn = vl_convert.vegalite_to_scenegraph(
            chart.to_dict(validate=False), vl_version=VEGA_LITE
        )
        self.width = float(drawn["width"])
        """Pixels, all text included."""
        self.marks = list(_walk(drawn["scenegraph"], 0.0, 0.0))
        self.plots = _plots(self.marks)

    @cached_property
    def legend(self) -> dict[str, Mark]:
        """The symbol that the legends show for each name."""
        found: dict[str, Mark] = {}
        symbol = None
        # A name follows its symbol; the numbers of a gradient follow none.
        for mark in self.marks:
            if mark.role == "legend-symbol":
                symbol = mark
            elif mark.role == "legend-label" and symbol is not None:
                found[mark.words] = symbol
                symbol = None
        return found

    def of_role(self, role: str) -> list[Mark]:
        return [mark for mark in self.marks if mark.role == role]

    def labels(self, text: str) -> list[Mark]:
        """Labels of axes with a text."""
        return [mark for mark in self.of_role("axis-label") if mark.words == text]

    def plot(self, *words: str) -> Plot:
        """The one plot whose title has all the words."""
        (one,) = [p for p in self.plots if all(word in p.title for word in words)]
        return one

    @property
    def subtitle(self) -> str:
        return "\n".join(mark.words for mark in self.of_role("title-subtitle"))


def _plots(drawn: list[Mark]) -> list[Plot]:
    areas = {
        # Layers lie in groups of their own over one plot.
        (m.x, m.y): m
        for m in drawn
        if m.kind == "group"
        and m.role in ("scope", "frame")
        and m.width >= _SMALLEST_PLOT
        and m.height >= _SMALLEST_PLOT
    }
    return [_plot(area, drawn) for area in areas.values()]


def _plot(area: Mark, drawn: list[Mark]) -> Plot:
    right, bottom = area.x + area.width + 1, area.y + area.height + 1
    below = [
        m
        for m in drawn
        if m.role == "axis-label"
        and m.orient == "bottom"
        and area.x - 1 <= m.x <= right
        and m.y >= bottom - 1
    ]
    beside = [
        m
        for m in drawn
        if m.role == "axis-label"
        and m.orient == "left"
        and area.y - 1 <= m.y <= bottom
        and m.x <= area.x
    ]
    nearest = min((m.y for m in below), default=0.0)
    rightmost = max((m.x for m in beside), default=0.0)
    titles = [m for m in drawn if m.role == "title-text" and m.y < area.y and m.x <= right]
    # Of those just above, the one that begins nearest to the plot.
    lowest = max((m.y for m in titles), default=0.0)
    above = [m for m in titles if lowest - m.y < 30]
    title = min(above, key=lambda m: abs(m.x - area.x)).words if above else ""
    title = " ".join(title.split())
    inside = [
        m
        for m in drawn
        if m.role == "mark" and area.x - 1 <= m.x <= right and area.y - 1 <= m.y <= bottom
    ]
    return Plot(
        title,
        inside,
        [m for m in below if m.y - nearest < 1],
        [m for m in beside if rightmost - m.x < 1],
    )


def _scale(labels: list[tuple[str, float]]) -> Callable[[float], float]:
    numbers = [float(text.replace(",", "").replace("\N{MINUS SIGN}", "-")) for text, _ in labels]
    slope, start = np.polyfit(numbers, [place for _, place in labels], 1)
    return lambda value: float(slope * value + start)


def _walk(mark: dict[str, Any], x: float, y: float, orient: str = "") -> Iterator[Mark]:
    for item in mark.get("items", ()):
        left, top = x + (item.get("x") or 0.0), y + (item.get("y") or 0.0)
        yield Mark(
            mark["marktype"],
            mark.get("role") or "",
            left,
            top,
            item.get("width") or 0.0,
            item.get("height") or 0.0,
            item.get("fill") if isinstance(item.get("fill"), str) else None,
            item.get("stroke") if isinstance(item.get("stroke"), str) else None,
            str(item.get("shape") or ""),
            item.get("text"),
            orient,
        )
        if mark["marktype"] == "group":
            for child in item.get("items", ()):
                of_axis = item.get("orient") if mark.get("role") == "axis" else ""
                yield from _walk(child, left, top, str(of_axis or ""))
