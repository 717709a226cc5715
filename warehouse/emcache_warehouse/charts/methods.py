"""Every method: a bar for each, grouped by what is trained, beside published figures."""

from __future__ import annotations

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.setups import describe_setups

KINDS = (
    "no labels",
    "few labels",
    "from scratch",
    "frozen backbone",
    "LoRA",
    "all weights",
    "domain adaptation",
)
"""Kinds of methods in the order to draw them, by how much is trained."""
PUBLISHED = "published"
"""Label of the place where published figures stand."""

_BAR, _HEIGHT, _LEAST = 30, 240, 96


def methods_chart(rows: pl.DataFrame) -> alt.VConcatChart:
    """Draw the test scores of every method, a row for each dataset and a panel for each kind.

    Args:
        rows: Columns of the named query ``methods``.

    Raises:
        WarehouseError: There are no rows of our own.
    """
    own = rows.filter(pl.col("run_id").is_not_null())
    if own.is_empty():
        raise WarehouseError(
            "no run has been tested on what it was trained on yet, so there is no score to draw; "
            "train some with `emcache train-head`, `emcache few-label` or `emcache train-unet`."
        )
    own, common = _labelled(own)
    published = rows.filter(
        pl.col("run_id").is_null() & pl.col("eval_on").is_in(own["eval_on"].unique().to_list())
    ).with_columns(bar=pl.lit(PUBLISHED))
    drawn = pl.concat([own, published], how="diagonal_relaxed")
    widths, lines = [], []
    for name in own["eval_on"].unique(maintain_order=True):
        of_data = drawn.filter(eval_on=name)
        kinds = sorted(of_data["kind"].unique(), key=_rank)
        panels = [
            _panel(name, kind, of_data.filter(kind=kind), first=kind == kinds[0]) for kind in kinds
        ]
        lines.append(alt.hconcat(*(panel for panel, _ in panels), spacing=10, title=_title(name)))
        widths.append(sum(width + 10.0 for _, width in panels) + 60.0)
    chart: alt.VConcatChart = alt.vconcat(*lines, spacing=26)
    legend = ["bar: mean of the runs", "dot: one run"]
    if own["iou_fg_low"].is_not_null().any():
        legend.append(
            "whisker: 95 % interval over seeds and blocks of slices, of ten slices or more"
        )
    if published.height:
        legend.append(
            "black line: a published figure, of other splits and sizes (its source on hover)"
        )
    return theme.finished(
        chart,
        drawn.to_dicts(),
        "What segments these slices best?",
        [common, theme.SEPARATOR.join(legend)],
        width=max(widths),
    )


def _title(name: str) -> alt.TitleParams:
    return theme.panel_title(f"{name}: trained and scored there")


def _rank(kind: str) -> tuple[int, str]:
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), kind


def _labelled(own: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Our rows with the label of their bar, and what all setups have in common.

    A method with one setup on a dataset has its name alone; several have below it what tells them
    apart.
    """
    parts = []
    for _, group in own.group_by("eval_on", "kind", "method", maintain_order=True):
        setups = describe_setups(group.drop("regime"))
        several = len(setups.order) > 1
        labels = [
            f"{method}\n{_short(setup)}" if several else str(method)
            for method, setup in zip(group["method"], setups.labels, strict=True)
        ]
        parts.append(group.with_columns(bar=pl.Series(labels, dtype=pl.String)))
    # A U-Net has neither backbone nor weights, which the others may have in common.
    others = own.filter(pl.col("backbone") != "none").drop("regime", "protocol")
    common = "" if others.is_empty() else describe_setups(others).common
    return pl.concat(parts), common


def _short(setup: str) -> str:
    """A setup without the name of its protocol, which the method says."""
    first, _, rest = setup.partition("\n")
    return rest if rest and first in ("paper", "few-label", "unet") else setup


def _panel(name: str, kind: str, rows: pl.DataFrame, *, first: bool) -> tuple[theme.Panel, float]:
    """One kind of method on one dataset, and the panel's width."""
    means = rows.filter(pl.col("bar") != PUBLISHED).group_by("bar").agg(pl.col("iou_fg").mean())
    bars = means.sort("iou_fg", "bar")["bar"].to_list()
    if (rows["bar"] == PUBLISHED).any():
        bars.append(PUBLISHED)
    width = float(max(_LEAST, _BAR * len(bars)))
    colour = theme.PALETTE[_rank(kind)[0] % len(theme.PALETTE)]
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter(alt.FieldEqualPredicate(field="eval_on", equal=name))
        .transform_filter(alt.FieldEqualPredicate(field="kind", equal=kind))
        .encode(
            x=alt.X(
                "bar:N",
                title=None,
                scale=alt.Scale(domain=bars, paddingInner=0.25, paddingOuter=0.2),
                axis=alt.Axis(
                    labelAngle=-50, labelExpr="split(datum.label, '\\n')", labelFontSize=10
                ),
            )
        )
    )
    own = base.transform_filter("isValid(datum.run_id)")
    axis = (
        alt.Axis()
        if first
        else alt.Axis(labelOpacity=0, ticks=False, domain=False, labelPadding=-18)
    )
    scale, title = alt.Scale(domain=[0, 1]), "foreground IoU" if first else None
    score = alt.Y("iou_fg:Q", title=title, scale=scale, axis=axis)
    bar = own.mark_bar(color=colour, opacity=0.85, size=_BAR * 0.75).encode(
        y=alt.Y("mean(iou_fg):Q", title=title, scale=scale, axis=axis),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("protocol:N"),
            alt.Tooltip("mean(iou_fg):Q", title="mean IoU", format=".3f"),
            alt.Tooltip("count():Q", title="runs"),
            alt.Tooltip("mean(annotated_slices):Q", title="annotated slices", format=".3~g"),
            alt.Tooltip("mean(labelled_pixels):Q", title="labelled pixels", format=",.0f"),
            alt.Tooltip("mean(train_seconds):Q", title="seconds of training", format=".3~g"),
        ],
    )
    whisker = (
        own.transform_filter("isValid(datum.iou_fg_low)")
        .mark_rule(color=theme.INK, strokeWidth=1.2, clip=True)
        .encode(y=alt.Y("min(iou_fg_low):Q"), y2=alt.Y2("max(iou_fg_high):Q"))
    )
    dots = own.mark_circle(
        size=18, opacity=1, color="white", stroke=theme.INK, strokeWidth=0.9
    ).encode(
        y=score,
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("seed:Q"),
            alt.Tooltip("iou_fg:Q", title="IoU", format=".3f"),
            alt.Tooltip("annotated_slices:Q"),
            alt.Tooltip("labelled_pixels:Q", format=",d"),
            alt.Tooltip("clicks:Q"),
            alt.Tooltip("trainable_parameters:Q", format=",d"),
            alt.Tooltip("train_seconds:Q", format=".3~g"),
            alt.Tooltip("run_id:N"),
        ],
    )
    published = (
        base.transform_filter("isValid(datum.citation)")
        .mark_tick(thickness=2, color="black", opacity=1, size=_BAR * 0.6)
        .encode(
            y=score,
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("iou_fg:Q", title="IoU", format=".3f"),
                alt.Tooltip("citation:N"),
                alt.Tooltip("note:N"),
            ],
        )
    )
    chart = alt.layer(bar, whisker, dots, published).properties(
        width=width, height=_HEIGHT, title=alt.TitleParams(kind, fontSize=11, anchor="middle")
    )
    return chart, width
