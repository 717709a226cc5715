"""Foreground IoU: bars over seeds, every seed as a dot, the paper's figure as a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.colours import colours_of
from emcache_warehouse.charts.setups import Setups, counted, describe_setups, training_order

_Concat = TypeVar("_Concat", alt.HConcatChart, alt.VConcatChart)

_BAR = 16
_GAP = 14
_LETTER = 6.2
_HEIGHT = 220
_WIDEST = 700
_AXIS = 70
_LEGEND = ("Bar: mean of the runs", "dot: one run", "whisker: one standard deviation")
_PAPER_LEGEND = "black line: the paper (arXiv 2602.08505)"


def iou_chart(rows: pl.DataFrame) -> alt.VConcatChart:
    """Draw the scores of runs, one panel per training data.

    Args:
        rows: Columns of the named query ``iou``: one row per run and test set.

    Raises:
        WarehouseError: There are no rows.
    """
    if rows.is_empty():
        raise WarehouseError(
            "no run has been tested yet, so there is no score to draw; train one with `emcache "
            "train-head DATASET`."
        )
    setups = describe_setups(rows)
    rows = _with_tests(rows.with_columns(pl.Series("setup", setups.labels)))
    tests = _test_order(rows)
    colour = alt.Color(
        "test:N",
        title="tested on",
        scale=alt.Scale(domain=tests, range=colours_of(rows, "test", tests)),
        legend=alt.Legend(orient="top", columns=4),
    )
    panels = [
        _panel(rows.filter(pl.col("train_on") == train_on), setups, tests, colour)
        for train_on in training_order(rows)
    ]
    lines, widest = _lines(panels)
    chart: alt.VConcatChart = _own_places(
        alt.vconcat(*(_own_places(alt.hconcat(*line, spacing=24)) for line in lines), spacing=20)
    ).resolve_scale(color="shared")
    return theme.finished(
        chart,
        rows.to_dicts(),
        "Foreground IoU on the test slices",
        [_runs_in_words(rows), setups.common, _legend(rows)],
        width=widest,
    )


def _legend(rows: pl.DataFrame) -> str:
    """What the marks mean; the paper's only where it has a figure for one of the bars."""
    facts = [*_LEGEND]
    if rows["paper_iou_fg"].is_not_null().any():
        facts.append(_PAPER_LEGEND)
    if "nothing_learned" in rows.columns and rows["nothing_learned"].is_not_null().any():
        facts.append("black dot: a run that learned nothing")
    if "seen" in rows.columns and rows["seen"].any():
        facts.append("seen: slices that the run has learned from, no test")
    return theme.SEPARATOR.join(facts)


def _own_places(chart: _Concat) -> _Concat:
    """Let every panel place its own bars; else all panels leave room for the bars of each."""
    placed: _Concat = chart.resolve_scale(x="independent", xOffset="independent")
    return placed


def _panel(
    rows: pl.DataFrame, setups: Setups, tests: list[str], colour: alt.Color
) -> tuple[theme.Panel, float]:
    """The panel and its width."""
    here = [label for label in setups.order if label in set(rows["setup"])]
    tests = [test for test in tests if test in set(rows["test"])]
    layout = _Layout.of(here, len(tests))
    base = _of_panel(rows["train_on"][0]).encode(
        x=alt.X(
            "setup:N",
            title=None,
            scale=alt.Scale(
                domain=here, paddingInner=layout.padding, paddingOuter=layout.padding / 2
            ),
            axis=layout.axis(),
        ),
        xOffset=alt.XOffset("test:N", scale=alt.Scale(domain=tests)),
    )
    score = alt.Scale(domain=[0, 1])
    mean = alt.Y("mean(iou_fg):Q", title="foreground IoU", scale=score)
    each = alt.Y("iou_fg:Q", title="foreground IoU", scale=score)
    paper = alt.Y("mean(paper_iou_fg):Q", title="foreground IoU", scale=score)
    cap = {"size": 7, "color": theme.INK}
    panel = alt.layer(
        base.mark_bar(size=layout.bar - 1).encode(y=mean, color=colour, tooltip=_bar_tooltip()),
        base.mark_errorbar(extent="stdev", clip=True, ticks=cap, color=theme.INK).encode(y=each),
        base.mark_circle(
            size=15, opacity=1, color="white", stroke=theme.INK, strokeWidth=0.9
        ).encode(
            y=each,
            fill=alt.condition(
                "isValid(datum.nothing_learned)", alt.value("black"), alt.value("white")
            ),
            tooltip=_dot_tooltip(),
        ),
        base.transform_filter("isValid(datum.paper_iou_fg)")
        .mark_tick(thickness=2, size=layout.bar - 1, color="black", opacity=1)
        .encode(y=paper),
    ).properties(
        width=layout.width,
        height=_HEIGHT,
        title=theme.panel_title(f"trained on {rows['train_on'][0]}"),
    )
    return panel, layout.width


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the bars of a panel stand, in pixels."""

    bar: float
    """Width of a bar."""
    padding: float
    """Share of a group that stays free."""
    width: float
    """Width of the panel."""
    upright: bool
    """Whether the labels are horizontal, one line per fact; else they are slanted."""

    @classmethod
    def of(cls, labels: list[str], tests: int) -> _Layout:
        longest = max(len(line) for label in labels for line in label.split("\n"))
        group = tests * _BAR + _GAP
        upright_group = max(group, longest * _LETTER + _GAP)
        several_lines = any("\n" in label for label in labels)
        widest = _WIDEST if several_lines else _WIDEST / 2
        upright = upright_group * len(labels) <= widest or upright_group == group
        if upright:
            group = round(upright_group)
        bar = min((group - _GAP) / tests, 2 * _BAR)
        return cls(bar, 1 - tests * bar / group, group * len(labels), upright)

    def axis(self) -> alt.Axis:
        join = "split(datum.label, '\\n')" if self.upright else "replace(datum.label, /\\n/g, ', ')"
        return alt.Axis(
            labelExpr=join, labelAngle=0 if self.upright else -40, ticks=False, labelPadding=6
        )


def _of_panel(train_on: str) -> alt.Chart:
    chart: alt.Chart = alt.Chart(theme.ROWS).transform_filter(
        alt.FieldEqualPredicate(field="train_on", equal=train_on)
    )
    return chart


def _bar_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("setup:N", title="backbone"),
        alt.Tooltip("test:N", title="tested on"),
        alt.Tooltip("mean(iou_fg):Q", title="mean IoU", format=".4f"),
        alt.Tooltip("count():Q", title="runs"),
        alt.Tooltip("mean(paper_iou_fg):Q", title="paper", format=".3f"),
    ]


def _dot_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("run_id:N", title="run"),
        alt.Tooltip("seed:Q", title="seed"),
        alt.Tooltip("iou_fg:Q", title="IoU", format=".4f"),
        alt.Tooltip("n_slices:Q", title="test slices"),
        alt.Tooltip("n_near:Q", title="near training slices"),
        alt.Tooltip("nothing_learned:N", title="learned nothing"),
    ]


def _lines(panels: list[tuple[theme.Panel, float]]) -> tuple[list[list[theme.Panel]], float]:
    """Panels side by side as long as they fit, and the width of the widest line."""
    lines: list[list[theme.Panel]] = []
    room, widest = 0.0, 0.0
    for panel, width in panels:
        if not lines or width + _AXIS > room:
            lines.append([])
            room = _WIDEST
        lines[-1].append(panel)
        room -= width + _AXIS
        widest = max(widest, _WIDEST - room)
    return lines, widest


def _with_tests(rows: pl.DataFrame) -> pl.DataFrame:
    """Name the test sets, with their size where one name stands for several sizes."""
    sizes = pl.col("n_slices").n_unique().over("setup", "train_on", "eval_on")
    name = pl.col("eval_on")
    if rows.select((sizes > 1).any()).item():
        name = pl.format("{}, {} slices", "eval_on", "n_slices")
    if "seen" in rows.columns:
        name = pl.when("seen").then(pl.format("{}, seen", name)).otherwise(name)
    return rows.with_columns(test=name)


def _test_order(rows: pl.DataFrame) -> list[str]:
    """Datasets, then what is computed from several of them."""
    return sorted(rows["test"].unique(), key=lambda name: (theme.is_computed(name), name))


def _runs_in_words(rows: pl.DataFrame) -> str:
    bars: Any = rows.group_by("setup", "train_on", "test").len()["len"]
    fewest, most = bars.min(), bars.max()
    each = str(most) if fewest == most else f"{fewest} to {most}"
    return f"{counted(rows['run_id'].n_unique(), 'run')}, {each} per bar"
