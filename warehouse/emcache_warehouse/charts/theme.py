"""The common look: fonts, sizes, colours that the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import altair as alt

Whole: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart
"""Any chart that can stand alone."""

AnyChart = TypeVar("AnyChart", bound=Whole)

ROWS = alt.NamedData("rows")
"""The one table behind a chart; panels take their rows from it by a filter."""

Panel: TypeAlias = alt.LayerChart | alt.FacetChart
"""What layering gives; a facet only where a layer has been given facets."""

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's colours, without the yellow that is lost on white and the black of the marks."""
SHAPES = (
    "circle",
    "triangle-up",
    "square",
    "diamond",
    "cross",
    "triangle-down",
    "triangle-left",
    "triangle-right",
)
"""Shapes of points, those first that are easiest to tell apart."""
PAIRS = ("#332288", "#882255", "#44aa99", "#ddaa33", "#88ccee", "#cc6677", "#117733", "#999933")
"""Tol's muted colours, for what is not a dataset and must not look like one."""
GREYS = {"macro": "#8c8c8c", "pooled": "#bdbdbd"}
"""What is computed from several datasets."""
INK = "#1b1f24"
"""Text, ticks and single observations."""

SEPARATOR = " \N{MIDDLE DOT} "
"""Between the facts of a subtitle."""

_SUBTITLE_LETTERS = 84
_LETTER = 5.5
_FONT = "Helvetica Neue, Arial, Liberation Sans, DejaVu Sans, sans-serif"
_SOFT = "#57606a"
_LINE = "#d8dee4"

_CONFIG: dict[str, Any] = {
    "background": "white",
    "font": _FONT,
    "padding": 12,
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelColor": INK,
        "titleColor": INK,
        "domainColor": _SOFT,
        "tickColor": _SOFT,
        "gridColor": _LINE,
        "labelLimit": 0,
    },
    "legend": {
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 0,
        "symbolStrokeWidth": 2,
    },
    "title": {
        "anchor": "start",
        "fontSize": 15,
        "subtitleFontSize": 11,
        "subtitleColor": _SOFT,
        "subtitleLineHeight": 15,
        "subtitlePadding": 6,
        "offset": 14,
        "color": INK,
    },
}


def finished(
    chart: AnyChart,
    rows: list[dict[str, Any]],
    title: str,
    subtitle: Sequence[str] = (),
    *,
    width: float = 0,
) -> AnyChart:
    """Give a whole chart its rows, its title, the lines below it, and the common look.

    Args:
        chart: Drawn from :data:`ROWS`.
        rows: What :data:`ROWS` stands for, JSON values.
        title: What it shows.
        subtitle: Facts, those of a line with :data:`SEPARATOR` between them.
        width: Pixels that the chart takes; longer lines are broken between facts.
    """
    heading: dict[str, Any] = {"text": title}
    if subtitle:
        heading["subtitle"] = [piece for line in subtitle for piece in _wrapped(line, width)]
    titled: Any = chart.properties(title=alt.TitleParams(**heading))
    whole: AnyChart = titled.configure(**_CONFIG)
    # Set last: every step above copies the chart, and the rows with it.
    whole.datasets = {ROWS.name: rows}
    return whole


def _wrapped(line: str, width: float) -> list[str]:
    letters = max(_SUBTITLE_LETTERS, int(width / _LETTER))
    pieces: list[str] = []
    for fact in line.split(SEPARATOR):
        if pieces and len(pieces[-1]) + len(SEPARATOR) + len(fact) <= letters:
            pieces[-1] += SEPARATOR + fact
        else:
            pieces.append(fact)
    return pieces


def panel_title(text: str | list[str]) -> alt.TitleParams:
    """The title of one panel among several."""
    return alt.TitleParams(text, fontSize=12, fontWeight="normal", offset=6)


def is_computed(test: str) -> bool:
    """Whether a test set is ``macro`` or ``pooled`` (or one of them with its size)."""
    return test.partition(",")[0] in GREYS


def colours(tests: Sequence[str], wished: Sequence[str | None]) -> list[str]:
    """A colour per test set: greys for what is computed from several, else the one it has anywhere.

    Args:
        tests: Names, none twice.
        wished: The colour of each one's dataset; None where it has none. Where two wish for one,
            the later gets another.
    """
    chosen: dict[str, str] = {}
    for test, colour in zip(tests, wished, strict=True):
        if is_computed(test):
            chosen[test] = GREYS[test.partition(",")[0]]
        elif colour is not None and colour not in chosen.values():
            chosen[test] = colour
    for place, test in enumerate(tests):
        free = (colour for colour in PALETTE if colour not in chosen.values())
        chosen.setdefault(test, next(free, PALETTE[place % len(PALETTE)]))
    return [chosen[test] for test in tests]
