"""Pictures of slices in rows and columns, with scale bars: figures for a paper."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from emcache.errors import UsageError
from emcache_warehouse.charts import theme

_WIDTH = 170
_GAP = 6
_BAR = 0.3
_LETTER, _LINE = 5.8, 13
_NM_OF_MICROMETRE = 1000


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the figure."""

    row: str
    """What its row shows; said at the left."""
    column: str
    """What its column shows; said above."""
    picture: UInt8[np.ndarray, "row col 3"]
    width_nm: float | None
    """Width of the slice in nanometres; None where unknown."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a colour stands for."""

    name: str
    colour: tuple[int, int, int]


def panels_chart(
    panels: Sequence[Panel], title: str, subtitle: Sequence[str], keys: Sequence[Key] = ()
) -> alt.VConcatChart:
    """Draw pictures in rows and columns; the last of those of one width has a scale bar.

    Args:
        panels: Row by row.
        title: What the figure shows.
        subtitle: Lines below it.
        keys: What colours stand for.

    Raises:
        UsageError: There are no pictures.
    """
    if not panels:
        raise UsageError("there are no slices to draw; name some with --slice.")
    rows = list(dict.fromkeys(panel.row for panel in panels))
    columns = list(dict.fromkeys(panel.column for panel in panels))
    lines: list[alt.HConcatChart | theme.Panel] = []
    for number, row in enumerate(rows):
        below = {p.column: p.width_nm for p in panels if p.row in rows[number + 1 : number + 2]}
        drawn = [
            _panel(
                panel,
                headed=row == rows[0],
                named=panel.column == columns[0],
                barred=below.get(panel.column) != panel.width_nm,
            )
            for panel in panels
            if panel.row == row
        ]
        lines.append(alt.hconcat(*drawn, spacing=_GAP))
    if keys:
        lines.append(_legend(keys))
    chart = alt.vconcat(*lines, spacing=_GAP)
    return theme.finished(chart, [], title, subtitle, width=len(columns) * (_WIDTH + _GAP))


def _panel(panel: Panel, *, headed: bool, named: bool, barred: bool) -> theme.Panel:
    rows, columns = panel.picture.shape[:2]
    height = round(_WIDTH * rows / columns)
    layers: list[alt.Chart] = [
        _one({"url": _address(panel.picture)})
        .mark_image(width=_WIDTH, height=height, align="left", baseline="top")
        .encode(x=alt.value(0), y=alt.value(0), url="url:N")
    ]
    if named:
        # No longer than the picture is high; further lines stand further left.
        wide = max(12, int(height / _LETTER))
        lines = textwrap.wrap(panel.row, wide, break_on_hyphens=False)
        label = _one({"text": "\n".join(lines)}).mark_text(
            angle=270,
            baseline="bottom",
            fontSize=11,
            color=theme.INK,
            lineBreak="\n",
            lineHeight=_LINE,
        )
        left = alt.value(-6 - _LINE * (len(lines) - 1))
        layers.append(label.encode(x=left, y=alt.value(height / 2), text="text:N"))
    if barred and panel.width_nm is not None:
        layers += _scale_bar(panel.width_nm, height)
    chart: theme.Panel = alt.layer(*layers).properties(width=_WIDTH, height=height)
    return chart.properties(title=_heading(panel.column)) if headed else chart


def _heading(text: str) -> alt.TitleParams:
    # Above the picture, whatever stands beside it.
    return alt.TitleParams(text, fontSize=12, fontWeight="normal", offset=6, frame="group")


def scale_of(width_nm: float) -> float:
    """Nanometres of a scale bar: 1, 2 or 5 times a power of ten, at most a third of the width."""
    most = width_nm * _BAR
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most)


def _scale_bar(width_nm: float, height: int) -> list[alt.Chart]:
    nanometres = scale_of(width_nm)
    right = _WIDTH - 8
    left = right - _WIDTH * nanometres / width_nm
    micrometres = nanometres / _NM_OF_MICROMETRE
    name = f"{micrometres:g} µm" if micrometres >= 1 else f"{nanometres:g} nm"
    at = {"y": alt.value(height - 9)}
    middle = alt.value((left + right) / 2)

    def bar(colour: str, wide: float, beyond: float) -> alt.Chart:
        ends = {"x": alt.value(left - beyond), "x2": alt.value(right + beyond)}
        drawn: alt.Chart = _one({}).mark_rule(color=colour, strokeWidth=wide).encode(**ends, **at)
        return drawn

    def text(**how: Any) -> alt.Chart:
        drawn: alt.Chart = (
            _one({"text": name})
            .mark_text(fontSize=10, fontWeight="bold", baseline="bottom", dy=-4, **how)
            .encode(x=middle, text="text:N", **at)
        )
        return drawn

    # White on black can be read on any slice.
    return [
        bar("black", 5, 1),
        bar("white", 3, 0),
        text(stroke="black", strokeWidth=2.5),
        text(color="white"),
    ]


def _legend(keys: Sequence[Key]) -> theme.Panel:
    data = alt.InlineData([{"name": key.name, "at": place} for place, key in enumerate(keys)])
    place = alt.X("at:O", axis=None, scale=alt.Scale(paddingInner=0.2))
    colours = alt.Scale(
        domain=[key.name for key in keys],
        range=["#{:02x}{:02x}{:02x}".format(*key.colour) for key in keys],
    )
    base = alt.Chart(data).encode(x=place).properties(width=150 * len(keys), height=18)
    return alt.layer(
        base.mark_square(size=110, xOffset=-58, opacity=1).encode(
            color=alt.Color("name:N", scale=colours, legend=None)
        ),
        base.mark_text(align="left", dx=-50, fontSize=11, color=theme.INK).encode(text="name:N"),
    )


def _one(row: dict[str, str]) -> alt.Chart:
    return alt.Chart(alt.InlineData([row]))


def _address(picture: UInt8[np.ndarray, "row col 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
