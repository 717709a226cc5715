"""The ladder of adaptation: what each rung scores, against what it takes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.setups import with_setups

_WIDTH, _HEIGHT = 250, 190


class _Cost(NamedTuple):
    """A price of a rung."""

    column: str
    title: str
    scale: Literal["linear", "log"]


_COSTS = (
    _Cost("trainable_parameters", "trained parameters", "log"),
    _Cost("train_seconds", "seconds of training", "log"),
    _Cost("memory_gb", "GB of memory at most", "linear"),
)


def ladder_chart(rows: pl.DataFrame) -> alt.VConcatChart:
    """Draw test scores against trained parameters, seconds and memory, a row for each dataset.

    Scores on datasets that a run was not trained on are left out.

    Args:
        rows: Columns of the named query ``ladder``.

    Raises:
        WarehouseError: There are no rows.
    """
    rows = rows.filter(pl.col("setting") != "transfer")
    if rows.is_empty():
        raise WarehouseError(
            "no run has been tested on what it was trained on yet, so there is no score to draw; "
            "train some with `emcache train-head`, `emcache train-lora` or `emcache train-full`."
        )
    # The rung says what was adapted, and its regime with it.
    rows, setups = with_setups(rows, without=["regime"])
    several = len(setups.order) > 1
    panel = pl.format("{}, trained on {}", "eval_on", "train_on")
    rows = rows.with_columns(panel=pl.format("{}: {}", panel, "setup") if several else panel)
    by_size = rows.group_by("rung").agg(pl.col("trainable_parameters").mean())
    rungs = by_size.sort("trainable_parameters", "rung")["rung"].to_list()
    costs = [cost for cost in _COSTS if rows[cost.column].is_not_null().any()]
    panels = rows["panel"].unique(maintain_order=True)
    chart: alt.VConcatChart = alt.vconcat(
        *(
            alt.hconcat(
                *(_panel(panel, cost, rungs) for cost in costs),
                spacing=24,
                title=theme.panel_title(panel),
            ).resolve_scale(y="shared")
            for panel in panels
        ),
        spacing=22,
    )
    return theme.finished(
        chart,
        rows.to_dicts(),
        "The ladder of adaptation",
        [
            setups.common,
            theme.SEPARATOR.join(["pale dot: one run", "large mark: mean of the runs"]),
        ],
        width=len(costs) * (_WIDTH + 40.0),
    )


def _panel(panel: str, cost: _Cost, rungs: list[str]) -> theme.Panel:
    scale = alt.Scale(type=cost.scale, zero=False, nice=True, padding=12)
    axis = alt.Axis(format="~s" if cost.scale == "log" else ".2~f", tickCount=5, labelOverlap=True)
    # Colours and shapes together, for more rungs than there are of either.
    colours = [theme.PALETTE[place % len(theme.PALETTE)] for place in range(len(rungs))]
    shapes = [theme.SHAPES[place % len(theme.SHAPES)] for place in range(len(rungs))]
    legend = alt.Legend(orient="right", symbolOpacity=1, symbolSize=90)
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter(alt.FieldEqualPredicate(field="panel", equal=panel))
        .transform_filter(alt.FieldValidPredicate(field=cost.column, valid=True))
        .encode(
            color=alt.Color(
                "rung:N", title=None, scale=alt.Scale(domain=rungs, range=colours), legend=legend
            ),
            shape=alt.Shape(
                "rung:N", title=None, scale=alt.Scale(domain=rungs, range=shapes), legend=legend
            ),
        )
    )
    y = alt.Scale(zero=False, nice=True, padding=10)
    dots = base.mark_point(filled=True, size=26, opacity=0.4).encode(
        x=alt.X(f"{cost.column}:Q", title=cost.title, scale=scale, axis=axis),
        y=alt.Y("iou_fg:Q", title="foreground IoU", scale=y),
        tooltip=[
            alt.Tooltip("rung:N"),
            alt.Tooltip("setup:N"),
            alt.Tooltip("seed:Q"),
            alt.Tooltip("iou_fg:Q", title="IoU", format=".3f"),
            alt.Tooltip("trainable_parameters:Q", format=",d"),
            alt.Tooltip("train_seconds:Q", format=".3g"),
            alt.Tooltip("memory_gb:Q", format=".3g"),
            alt.Tooltip("cache_gb:Q", format=".3g"),
            alt.Tooltip("run_id:N"),
        ],
    )
    means = base.mark_point(filled=True, size=110, opacity=1).encode(
        x=alt.X(f"mean({cost.column}):Q"), y=alt.Y("mean(iou_fg):Q")
    )
    return alt.layer(dots, means).properties(width=_WIDTH, height=_HEIGHT)
