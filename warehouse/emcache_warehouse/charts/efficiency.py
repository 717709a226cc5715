"""Label efficiency: what a method scores against how many slices were annotated."""

from __future__ import annotations

from typing import NamedTuple

import altair as alt
import numpy as np
import polars as pl
from scipy.stats import t as student

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.setups import with_setups

ENOUGH = 0.95
"""Share of a method's score with the most slices that is asked for."""

_WIDTH, _HEIGHT = 400, 280
_DRAWS = 2000


class Needed(NamedTuple):
    """Annotated slices from which on a method has :data:`ENOUGH` of its score with the most."""

    slices: float
    """Between two numbers that were tried, on the line through their mean scores."""
    low: float
    """Lower end of the 95 % interval, by drawing seeds anew."""
    high: float


def slices_needed(rows: pl.DataFrame) -> Needed | None:
    """How many annotated slices one method needs on one dataset for most of its score.

    Args:
        rows: Of the named query ``label-efficiency``, of one method and test set.

    Returns:
        None with fewer than two numbers of slices, or fewer than three seeds at the largest.
    """
    counts = sorted(rows["annotated_slices"].unique())
    scores = [rows.filter(annotated_slices=count)["iou_fg"].to_numpy() for count in counts]
    if len(counts) < 2 or len(scores[-1]) < 3:
        return None
    random = np.random.default_rng(0)
    drawn = [
        _crossing(counts, [random.choice(own, len(own)).mean() for own in scores])
        for _ in range(_DRAWS)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Needed(_crossing(counts, [own.mean() for own in scores]), float(low), float(high))


def _crossing(counts: list[int], means: list[float]) -> float:
    """The first number at which the line through the means reaches enough of the last one."""
    wanted = ENOUGH * means[-1]
    if means[0] >= wanted:
        return float(counts[0])
    place = next(i for i, mean in enumerate(means) if mean >= wanted)
    before, after = means[place - 1], means[place]
    share = (wanted - before) / (after - before)
    return counts[place - 1] + share * (counts[place] - counts[place - 1])


def efficiency_chart(rows: pl.DataFrame) -> alt.VConcatChart:
    """Draw scores against annotated slices, a panel for each dataset and a line for each method.

    Args:
        rows: Columns of the named query ``label-efficiency``.

    Raises:
        WarehouseError: There are no rows.
    """
    if rows.is_empty():
        raise WarehouseError(
            "no run says how many slices it was given, so there is nothing to draw; train some "
            "with `emcache train-head DATASET --train-slices 1,2,4,all`."
        )
    # The method says regime and head; the rest of a protocol may still tell two apart.
    rows, setups = with_setups(rows, without=["regime"])
    several = len(setups.order) > 1
    rows = rows.with_columns(line=pl.format("{}: {}", "method", "setup") if several else "method")
    lines = rows["line"].unique().sort().to_list()
    datasets = rows["eval_on"].unique(maintain_order=True)
    panels = [_panel(name, lines) for name in datasets]
    found = [
        text
        for (name, line), own in rows.group_by("eval_on", "line", maintain_order=True)
        if (text := _in_words(f"{name}, {line}", slices_needed(own)))
    ]
    chart: alt.VConcatChart = alt.vconcat(
        *(
            alt.hconcat(*panels[start : start + 2], spacing=30)
            for start in range(0, len(panels), 2)
        ),
        spacing=26,
    )
    return theme.finished(
        chart,
        [*rows.to_dicts(), *_means(rows)],
        "How many slices must be annotated?",
        [
            setups.common,
            "dot: one run; line: mean of the runs; band: its 95 % interval over seeds",
            *found,
        ],
        width=min(len(panels), 2) * (_WIDTH + 60.0),
    )


def _in_words(what: str, needed: Needed | None) -> str:
    if needed is None:
        return ""
    return (
        f"{what}: {ENOUGH:.0%} of its score with the most slices takes {needed.slices:.1f} "
        f"({needed.low:.1f} to {needed.high:.1f})"
    )


def _means(rows: pl.DataFrame) -> list[dict[str, object]]:
    """Mean and interval of each point of a line."""
    means = []
    for (name, line, count), own in rows.group_by(
        "eval_on", "line", "annotated_slices", maintain_order=True
    ):
        scores = own["iou_fg"].to_numpy()
        mean, reach = float(scores.mean()), 0.0
        if len(scores) > 1:
            error = float(scores.std(ddof=1)) / len(scores) ** 0.5
            reach = float(student.ppf(0.975, len(scores) - 1)) * error
        means.append(
            {
                "eval_on": name,
                "line": line,
                "annotated_slices": count,
                "mean": mean,
                "low": max(0.0, mean - reach),
                "high": min(1.0, mean + reach),
            }
        )
    return means


def _panel(name: str, lines: list[str]) -> theme.Panel:
    colours = [theme.PALETTE[place % len(theme.PALETTE)] for place in range(len(lines))]
    shapes = [theme.SHAPES[place % len(theme.SHAPES)] for place in range(len(lines))]
    legend = alt.Legend(orient="top", columns=1, symbolOpacity=1)
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter(alt.FieldEqualPredicate(field="eval_on", equal=name))
        .encode(
            x=alt.X(
                "annotated_slices:Q",
                title="annotated slices",
                scale=alt.Scale(type="log", base=2, padding=14, nice=False),
                axis=alt.Axis(format="d", values=[2**power for power in range(20)]),
            ),
            color=alt.Color(
                "line:N", title=None, scale=alt.Scale(domain=lines, range=colours), legend=legend
            ),
        )
    )
    means = base.transform_filter("isValid(datum.mean)")
    band = means.mark_area(opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = means.mark_line(strokeWidth=2).encode(y=alt.Y("mean:Q"))
    dots = (
        base.transform_filter("isValid(datum.iou_fg)")
        .mark_point(filled=True, size=34, opacity=0.6)
        .encode(
            y=alt.Y("iou_fg:Q", title="foreground IoU", scale=alt.Scale(zero=True)),
            shape=alt.Shape(
                "line:N", title=None, scale=alt.Scale(domain=lines, range=shapes), legend=legend
            ),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("setup:N"),
                alt.Tooltip("annotated_slices:Q"),
                alt.Tooltip("labelled_pixels:Q", format=",d"),
                alt.Tooltip("clicks:Q"),
                alt.Tooltip("seed:Q"),
                alt.Tooltip("iou_fg:Q", title="IoU", format=".3f"),
                alt.Tooltip("run_id:N"),
            ],
        )
    )
    return alt.layer(band, line, dots).properties(
        width=_WIDTH, height=_HEIGHT, title=theme.panel_title(f"{name}: trained and scored there")
    )
