"""Alignment: what each way of aligning does to training alone, together, and to transfer."""

from __future__ import annotations

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.setups import with_setups

_SETTINGS = ("alone", "together", "transfer")
_STEP = 78
_HEIGHT = 240
_LETTER = 6.0


def alignment_chart(rows: pl.DataFrame) -> alt.VConcatChart:
    """Draw test scores by alignment, a panel for each dataset that is scored.

    Args:
        rows: Columns of the named query ``alignment``.

    Raises:
        WarehouseError: There are no rows.
    """
    if rows.is_empty():
        raise WarehouseError(
            "no run has been tested yet, so there is no score to draw; train one with `emcache "
            "train-head DATASET DATASET --align standardise`."
        )
    rows, setups = with_setups(rows)
    several = len(setups.order) > 1
    rows = rows.with_columns(
        panel=pl.format("scored on {}: {}", "eval_on", "setup")
        if several
        else pl.format("scored on {}", "eval_on")
    )
    methods = [
        name
        for name in rows["aligned_by"].unique(maintain_order=True).sort().to_list()
        if name != "none"
    ]
    methods = ["none", *methods]
    panels = [_panel(panel, methods) for panel in rows["panel"].unique(maintain_order=True)]
    width = len(methods) * _STEP
    columns = max(1, int(1000 / (width + 60)))
    chart: alt.VConcatChart = alt.vconcat(
        *(
            alt.hconcat(*panels[start : start + columns], spacing=30).resolve_scale(y="shared")
            for start in range(0, len(panels), columns)
        ),
        spacing=26,
    )
    return theme.finished(
        chart,
        rows.to_dicts(),
        "Does alignment close the gap?",
        [
            setups.common,
            theme.SEPARATOR.join(
                [
                    "dot: one run",
                    "tick: mean",
                    "alone: trained on that dataset",
                    "together: on it and others",
                    "transfer: on others alone",
                ]
            ),
        ],
        width=min(len(panels), columns) * (width + 60.0),
    )


def _panel(panel: str, methods: list[str]) -> theme.Panel:
    tilted = max(map(len, methods)) * _LETTER > _STEP
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter(alt.FieldEqualPredicate(field="panel", equal=panel))
        .encode(
            x=alt.X(
                "aligned_by:N",
                title=None,
                scale=alt.Scale(domain=methods),
                axis=alt.Axis(labelAngle=-25 if tilted else 0, labelLimit=0),
            ),
            xOffset=alt.XOffset("setting:N", scale=alt.Scale(domain=list(_SETTINGS))),
            color=alt.Color(
                "setting:N",
                title=None,
                scale=alt.Scale(domain=list(_SETTINGS), range=list(theme.PAIRS[:3])),
                legend=alt.Legend(orient="top", symbolOpacity=1),
            ),
        )
    )
    dots = base.mark_point(filled=True, size=28, opacity=0.7).encode(
        y=alt.Y("iou_fg:Q", title="foreground IoU", scale=alt.Scale(zero=True)),
        tooltip=[
            alt.Tooltip("aligned_by:N"),
            alt.Tooltip("setting:N"),
            alt.Tooltip("train_on:N", title="trained on"),
            alt.Tooltip("eval_on:N", title="scored on"),
            alt.Tooltip("setup:N"),
            alt.Tooltip("seed:Q"),
            alt.Tooltip("iou_fg:Q", title="IoU", format=".3f"),
            alt.Tooltip("run_id:N"),
        ],
    )
    ticks = base.mark_tick(thickness=2, size=18).encode(y=alt.Y("mean(iou_fg):Q"))
    return alt.layer(dots, ticks).properties(
        width=len(methods) * _STEP, height=_HEIGHT, title=theme.panel_title(panel)
    )
