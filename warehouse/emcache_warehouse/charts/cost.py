"""Cost: what the cache took, and what it saved."""

from __future__ import annotations

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme

_WIDTH = 300
_LINE = 46


def cost_chart(rows: pl.DataFrame) -> alt.HConcatChart:
    """Draw seconds spent and saved, and the size on disk, a line for each feature set.

    Args:
        rows: Columns of the named query ``cost``.

    Raises:
        WarehouseError: There are no rows.
    """
    if rows.is_empty():
        raise WarehouseError(
            "nothing has been extracted yet, so there is no cost to draw; start with `emcache "
            "extract DATASET --backbone NAME`."
        )
    rows = _with_lines(rows.with_columns(gigabytes=pl.col("total_bytes") / 1e9))
    height = rows.height * _LINE
    order = rows["line"].to_list()
    # Up by half a line, so that two lines lie around their tick.
    axis = alt.Axis(labelExpr="split(datum.label, '\\n')", labelOffset=-6)
    y = alt.Y("line:N", title=None, sort=order, axis=axis)
    base = alt.Chart(theme.ROWS).encode(
        y=y,
        tooltip=[
            alt.Tooltip("feature_set:N"),
            alt.Tooltip("n_slices:Q"),
            alt.Tooltip("extract_seconds:Q", format=".3g"),
            alt.Tooltip("backbone_seconds_saved:Q", format=".3g"),
            alt.Tooltip("break_even_epoch:Q", format=".2f"),
            alt.Tooltip("n_runs:Q"),
            alt.Tooltip("gigabytes:Q", format=".3g"),
        ],
    )
    kinds = ["extraction", "saved in training"]
    seconds = (
        base.transform_calculate(
            extraction="datum.extract_seconds", saved="datum.backbone_seconds_saved"
        )
        .transform_fold(["extraction", "saved"], as_=["kind", "seconds"])
        .transform_calculate(kind=f"datum.kind == 'saved' ? '{kinds[1]}' : '{kinds[0]}'")
        .mark_bar()
        .encode(
            x=alt.X("seconds:Q", title="seconds of the backbone", axis=alt.Axis(tickCount=5)),
            yOffset=alt.YOffset("kind:N", scale=alt.Scale(domain=kinds)),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=kinds, range=[theme.PALETTE[1], theme.PALETTE[0]]),
                legend=alt.Legend(orient="bottom"),
            ),
        )
        .properties(width=_WIDTH, height=height)
    )
    size = (
        base.mark_bar(color=theme.PALETTE[2], size=14)
        .encode(
            x=alt.X("gigabytes:Q", title="GB on disk", axis=alt.Axis(tickCount=3)),
            y=alt.Y("line:N", sort=order, title=None, axis=None),
        )
        .properties(width=_WIDTH / 2, height=height)
    )
    chart: alt.HConcatChart = alt.hconcat(seconds, size, spacing=20)
    return theme.finished(
        chart,
        rows.to_dicts(),
        "What the cache cost, and what it saved",
        [
            "saved: passes through the backbone that training did not repeat",
            "runs that stopped early saved less",
        ],
        width=700,
    )


def _with_lines(rows: pl.DataFrame) -> pl.DataFrame:
    """What each feature set is of, in two short lines; more of its name where two are alike."""
    size = pl.format("{} px", "longest_edge").fill_null("one physical scale")
    rows = rows.with_columns(line=pl.format("{}\n{}, {}", "dataset", "backbone", size))
    alike = pl.len().over("line") > 1
    # The last twelve characters of a feature set's name are of its fingerprint.
    numbered = pl.format("{}, {}", "line", pl.col("feature_set").str.slice(-12))
    return rows.with_columns(line=pl.when(alike).then(numbered).otherwise("line"))
