"""Transfer: what a run loses on another dataset, against how far that dataset lies."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.gap import setup_words
from emcache_warehouse.choice import EVERYTHING, Choice, chosen_rows

_SHAPES = ("circle", "triangle-up", "square", "diamond", "cross", "triangle-down")


def transfer_rows(database: Path, choice: Choice = EVERYTHING) -> pl.DataFrame:
    """The rows that :func:`transfer_chart` draws: a run and a foreign dataset each.

    Args:
        database: The warehouse's file.
        choice: What of it.

    Raises:
        WarehouseError: The warehouse cannot be read, or nothing is left.
    """
    return chosen_rows(database, "transfer", choice)


def transfer_chart(rows: pl.DataFrame) -> theme.Panel:
    """Draw the drop of the score against the distance.

    Args:
        rows: Columns of the named query ``transfer``.

    Raises:
        WarehouseError: There are no rows.
    """
    if rows.is_empty():
        raise WarehouseError(
            "no run has both a score on another dataset and a measured distance to it; score one "
            "with `emcache evaluate RUN --on DATASET` and measure with `emcache gap A B`."
        )
    rows = rows.with_columns(
        pair=pl.format("{} \N{RIGHTWARDS ARROW} {}", "train_on", "eval_on"),
        setup=pl.format("{}: {}", setup_words(), "regime"),
    )
    pairs = rows["pair"].unique(maintain_order=True).to_list()
    setups = rows["setup"].unique(maintain_order=True).to_list()
    distance = alt.X("frechet:Q", title="squared Frechet distance", scale=alt.Scale(zero=True))
    base = alt.Chart(theme.ROWS).encode(
        x=distance,
        y=alt.Y("iou_drop:Q", title="IoU lost: own test slices less other dataset"),
        color=alt.Color(
            "pair:N",
            title="trained on \N{RIGHTWARDS ARROW} scored on",
            legend=alt.Legend(symbolType="circle", symbolOpacity=1),
            scale=alt.Scale(
                domain=pairs,
                range=[theme.PALETTE[i % len(theme.PALETTE)] for i in range(len(pairs))],
            ),
        ),
    )
    whiskers = base.mark_rule(opacity=0.6).encode(
        x=alt.X("frechet_low:Q", title="squared Frechet distance"), x2="frechet_high:Q"
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        shape=alt.Shape(
            "setup:N",
            title="features",
            scale=alt.Scale(
                domain=setups, range=[_SHAPES[i % len(_SHAPES)] for i in range(len(setups))]
            ),
        ),
        tooltip=[
            alt.Tooltip("pair:N", title="transfer"),
            alt.Tooltip("setup:N", title="features"),
            alt.Tooltip("split:N"),
            alt.Tooltip("seed:Q"),
            alt.Tooltip("iou_source:Q", format=".3f"),
            alt.Tooltip("iou_target:Q", format=".3f"),
            alt.Tooltip("frechet:Q", format=".4g"),
            alt.Tooltip("run_id:N"),
        ],
    )
    zero = (
        alt.Chart(theme.ROWS).mark_rule(color=theme.INK, strokeDash=[3, 3]).encode(y=alt.datum(0))
    )
    chart: theme.Panel = alt.layer(zero, whiskers, dots).properties(width=420, height=300)
    return theme.finished(
        chart,
        rows.to_dicts(),
        "Does a larger gap cost more of the score?",
        ["dot: one run on another dataset", "whisker: 95 % interval of the distance"],
        width=560,
    )
