"""Transfer: what a run loses on another dataset, against how far that dataset lies."""

from __future__ import annotations

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.colours import colours_of
from emcache_warehouse.charts.setups import describe_setups, training_order

_COLUMNS = 2
_WIDTH = 320


def transfer_chart(rows: pl.DataFrame) -> alt.FacetChart:
    """Draw the drop of the score against the distance, a panel for each training data.

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
    setups = describe_setups(rows)
    rows = rows.with_columns(
        setup=pl.Series([label.replace("\n", ", ") for label in setups.labels], dtype=pl.String),
        panel=pl.format("trained on {}", "train_on"),
    )
    shown = [label.replace("\n", ", ") for label in setups.order]
    tests = sorted(rows["eval_on"].unique())
    trained = training_order(rows)
    distance = alt.X("frechet:Q", title="squared Frechet distance", scale=alt.Scale(zero=True))
    legend = alt.Legend(orient="bottom", columns=2, symbolOpacity=1)
    base = alt.Chart().encode(
        x=distance,
        y=alt.Y("iou_drop:Q", title="IoU lost"),
        color=alt.Color(
            "eval_on:N",
            title="scored on",
            legend=legend,
            scale=alt.Scale(domain=tests, range=colours_of(rows, "eval_on", tests)),
        ),
    )
    whiskers = base.mark_rule(opacity=0.6).encode(
        x=alt.X("frechet_low:Q", title="squared Frechet distance"), x2="frechet_high:Q"
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        shape=alt.Shape(
            "setup:N",
            title="setup",
            legend=alt.Legend(orient="bottom", columns=1) if len(shown) > 1 else None,
            scale=alt.Scale(
                domain=shown, range=[theme.SHAPES[i % len(theme.SHAPES)] for i in range(len(shown))]
            ),
        ),
        tooltip=[
            alt.Tooltip("train_on:N", title="trained on"),
            alt.Tooltip("eval_on:N", title="scored on"),
            alt.Tooltip("setup:N", title="setup"),
            alt.Tooltip("split:N"),
            alt.Tooltip("seed:Q"),
            alt.Tooltip("iou_source:Q", title="IoU on its own test slices", format=".3f"),
            alt.Tooltip("iou_target:Q", title="IoU on the other dataset", format=".3f"),
            alt.Tooltip("frechet:Q", format=".4g"),
            alt.Tooltip("run_id:N"),
        ],
    )
    zero = alt.Chart().mark_rule(color=theme.INK, strokeDash=[3, 3]).encode(y=alt.datum(0))
    columns = min(len(trained), _COLUMNS)
    chart: alt.FacetChart = (
        alt.layer(zero, whiskers, dots, data=theme.ROWS)
        .properties(width=_WIDTH if len(trained) > 1 else 420, height=220)
        .facet(
            facet=alt.Facet(
                "panel:N",
                title=None,
                sort=[f"trained on {names}" for names in trained],
                header=alt.Header(labelAnchor="start", labelFontSize=12, labelColor=theme.INK),
            ),
            columns=columns,
            spacing=24,
        )
    )
    return theme.finished(
        chart,
        rows.to_dicts(),
        "Does a larger gap cost more of the score?",
        [
            setups.common,
            theme.SEPARATOR.join(
                [
                    "IoU lost: own test slices less other dataset",
                    "dot: one run on another dataset",
                    "whisker: 95 % interval of the distance",
                ]
            ),
        ],
        width=columns * (_WIDTH + 60.0),
    )
