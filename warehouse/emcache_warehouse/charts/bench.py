"""Benchmarks: how far each ratio is beyond its target, and how time grows with the slices."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.query import run_named_query

_WIDTH, _GROWTH_WIDTH = 360, 300
_LINE = 22
_BEYOND = "times better than the target asks"
_VERDICTS = {"pass": theme.PALETTE[2], "fail": theme.PALETTE[5]}


class BenchRows(NamedTuple):
    """What the chart draws."""

    ratios: pl.DataFrame
    """Columns of the named query ``bench``, of one machine."""
    growth: pl.DataFrame
    """Columns of the named query ``growth``, of the same."""


def bench_rows(database: Path) -> BenchRows:
    """The rows that :func:`bench_chart` draws: those of the machine that was measured last.

    Raises:
        WarehouseError: The warehouse cannot be read.
    """
    ratios, growth = (run_named_query(database, name) for name in ("bench", "growth"))
    last = run_named_query(database, "bench-machine")
    if last.is_empty():
        return BenchRows(ratios, growth)
    own = pl.col("machine") == last["machine"][0]
    return BenchRows(ratios.filter(own), growth.filter(own))


def bench_chart(rows: BenchRows) -> alt.HConcatChart:
    """Draw each ratio against its target, and beside it how time grows with the slices.

    Args:
        rows: Of one machine.

    Raises:
        WarehouseError: Nothing has been measured.
    """
    ratios, growth = rows
    if ratios.is_empty():
        raise WarehouseError(
            "nothing has been measured yet; measure this machine with `emcache bench`."
        )
    ratios = ratios.with_columns(label=_label())
    panels: list[theme.Panel] = []
    if ratios["margin"].is_not_null().any():
        panels.append(_ratios(ratios))
    if not growth.is_empty():
        panels.append(_growth(growth))
    if not panels:
        raise WarehouseError(
            "nothing with a target has been measured yet; measure all of it with `emcache bench`."
        )
    chart: alt.HConcatChart = alt.hconcat(*panels, spacing=30).resolve_scale(color="independent")
    without = ratios.filter(pl.col("margin").is_null())["label"].to_list()
    # The newest figure of each benchmark may be of another run than its neighbour's.
    share = ratios["quick"].mean()
    quick = " with --quick" if share == 1 else ", in part with --quick," if share else ""
    facts = [
        f"measured{quick} on {ratios['machine'][0]}",
        "each figure is a ratio taken in one run; line: lowest to highest round",
        f"without a target: {'; '.join(without)}" if without else "",
    ]
    marked = [
        *({"panel": "ratio", **row} for row in ratios.iter_rows(named=True)),
        *({"panel": "growth", **row} for row in growth.iter_rows(named=True)),
    ]
    return theme.finished(
        chart,
        marked,
        "How fast is emcache here?",
        [fact for fact in facts if fact],
        width=_WIDTH + _GROWTH_WIDTH + 200,
    )


def _label() -> pl.Expr:
    """``head-step-266: 3.4 (>= 3)``."""
    figure = (
        pl.when(pl.col("ratio") >= 100)
        .then(pl.col("ratio").round(0).cast(pl.Int64).cast(pl.String))
        .otherwise(pl.col("ratio").round_sig_figs(3).cast(pl.String))
    )
    unit = pl.when(pl.col("unit") == "ratio").then(pl.lit("")).otherwise(" " + pl.col("unit"))
    target = (
        pl.when(pl.col("target").is_null())
        .then(pl.lit(""))
        .otherwise(pl.format(" (target {})", "target"))
    )
    return pl.concat_str("name", pl.lit(": "), figure, unit, target)


def _ratios(ratios: pl.DataFrame) -> theme.Panel:
    """A dot for each ratio with a target; right of the line is beyond it."""
    shown = ratios.filter(pl.col("margin").is_not_null())
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter("datum.panel == 'ratio' && isValid(datum.margin)")
        .encode(
            y=alt.Y(
                "label:N",
                title=None,
                sort=shown["label"].to_list(),
                axis=alt.Axis(ticks=False, domain=False, labelPadding=8),
            ),
            color=alt.Color(
                "verdict:N",
                title=None,
                scale=alt.Scale(domain=list(_VERDICTS), range=list(_VERDICTS.values())),
                legend=alt.Legend(orient="bottom"),
            ),
            tooltip=[
                alt.Tooltip("question:N", title="what"),
                alt.Tooltip("ratio:Q", format=".4g"),
                alt.Tooltip("low:Q", format=".4g"),
                alt.Tooltip("high:Q", format=".4g"),
                alt.Tooltip("target:N"),
                alt.Tooltip("note:N"),
            ],
        )
    )
    most = max(2.0, float(shown["margin_high"].max() or 1.0))  # type: ignore[arg-type]
    least = min(0.5, float(shown["margin_low"].min() or 1.0))  # type: ignore[arg-type]
    scale = alt.Scale(type="log", domain=[least, most])
    x = alt.X(
        "margin:Q",
        title=_BEYOND,
        scale=scale,
        axis=alt.Axis(tickCount=6, format="~g"),
    )
    spread = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("margin_low:Q", scale=scale, title=_BEYOND), x2="margin_high:Q"
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x=x)
    target = (
        alt.Chart(alt.InlineData(values=[{"one": 1}]))
        .mark_rule(color=theme.INK, strokeDash=[4, 3])
        .encode(x=alt.X("one:Q", scale=scale))
    )
    return alt.layer(target, spread, dots).properties(width=_WIDTH, height=shown.height * _LINE)


def _growth(growth: pl.DataFrame) -> theme.Panel:
    """A line for each stage, and one that rises as the number of slices does."""
    stages = growth["stage"].unique(maintain_order=True).to_list()
    x = alt.X(
        "n_slices:Q",
        title="slices",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(values=growth["n_slices"].unique().sort().to_list(), format="~g"),
    )
    y = alt.Y(
        "seconds:Q",
        title="seconds",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(tickCount=5, format="~g"),
    )
    lines = (
        alt.Chart(theme.ROWS)
        .transform_filter("datum.panel == 'growth'")
        .mark_line(point=alt.OverlayMarkDef(size=40, opacity=1), strokeWidth=2)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "stage:N",
                title=None,
                scale=alt.Scale(domain=stages, range=list(theme.PALETTE[: len(stages)])),
                legend=alt.Legend(orient="bottom", columns=3),
            ),
            tooltip=[
                alt.Tooltip("stage:N"),
                alt.Tooltip("n_slices:Q"),
                alt.Tooltip("seconds:Q", format=".3g"),
            ],
        )
    )
    few, many = int(growth["n_slices"].min()), int(growth["n_slices"].max())  # type: ignore[arg-type]
    start = float(growth.filter(pl.col("n_slices") == few)["seconds"].min())  # type: ignore[arg-type]
    linear = [
        {"n_slices": few, "seconds": start},
        {"n_slices": many, "seconds": start * many / few},
    ]
    reference = (
        alt.Chart(alt.InlineData(values=linear))
        .mark_line(color=theme.INK, strokeDash=[4, 3], strokeWidth=1)
        .encode(x=x, y=y)
    )
    return alt.layer(reference, lines).properties(
        width=_GROWTH_WIDTH,
        height=max(220, 12 * _LINE),
        title=theme.panel_title("Growth; dashed: in proportion to the slices"),
    )
