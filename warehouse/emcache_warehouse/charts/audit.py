"""The audit of a pairing as a picture: every mask against every image, and the pairs to look at."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache.storage.hashing import is_inside
from emcache_warehouse.charts import theme
from emcache_warehouse.query import run_named_query

_CELL = 13
_SMALLEST, _LARGEST = 160, 560
_PICTURE = 190
_MOST_LABELS = 45


@dataclass(frozen=True, slots=True)
class Worst:
    """A slice whose own mask fits worst, with the mask's outline."""

    slice_id: str
    data: bytes
    """The picture's file."""
    media: str = "image/png"
    """The kind of file."""


def audit_rows(database: Path, dataset: str) -> pl.DataFrame:
    """The rows that :func:`audit_chart` draws.

    Raises:
        WarehouseError: The warehouse cannot be read.
    """
    return run_named_query(database, "audit", {"dataset": dataset})


def worst_slices(runs: Path, audit_id: str) -> list[Worst]:
    """The pictures that an audit's record keeps; none where its folder has gone."""
    if not is_inside(audit_id):
        return []
    folder = runs / audit_id / "worst"
    home = folder.resolve()
    return [
        Worst(path.relative_to(folder).with_suffix("").as_posix(), path.read_bytes())
        for path in sorted(folder.rglob("*.png"))
        # A link would bring another file of this machine into a chart that is sent away.
        if path.is_file() and path.resolve().is_relative_to(home)
    ]


def audit_chart(rows: pl.DataFrame, worst: Sequence[Worst] = ()) -> alt.VConcatChart:
    """Draw the scores as a heat map, and the slices whose own masks fit worst.

    Args:
        rows: Columns of the named query ``audit``: one row for each image and mask.
        worst: Pictures to show below.

    Raises:
        WarehouseError: There are no rows.
    """
    if rows.is_empty():
        raise WarehouseError(
            "no audit has compared masks with images yet; make one with `emcache dataset audit "
            "NAME` (a dataset needs at least five masks)."
        )
    first = rows.row(0, named=True)
    order = rows["image"].unique(maintain_order=True).to_list()
    heat = _heat_map(rows, order)
    panels: list[alt.LayerChart | alt.HConcatChart | alt.FacetChart] = [heat]
    if worst:
        panels.append(alt.hconcat(*(_picture(item) for item in worst), spacing=10))
    chart: alt.VConcatChart = alt.vconcat(*panels, spacing=24).resolve_scale(color="independent")
    examined = first["examined"] or len(order)
    facts = [
        f"verdict: {first['verdict']}",
        f"{round(first['own_mask_wins'] * examined)} of {examined} slices fit their own mask best",
        f"{first['displaced']} have another slice's mask" if first["displaced"] else "",
        f"cannot tell for {first['undecided']}" if first["undecided"] else "",
        f"likely cause: {first['cause']}" if first["cause"] else "",
    ]
    legend = [
        f"{len(order)} slices shown" if len(order) < examined else "",
        f"colour: {first['channel']}",
        "circle: what both halves of the pictures say",
    ]
    below = ["below: the slices whose own masks fit worst"] if worst else []
    return theme.finished(
        chart,
        rows.to_dicts(),
        f"Do the masks of {first['dataset']} belong to its slices?",
        [theme.SEPARATOR.join(x for x in line if x) for line in (facts, legend, below) if line],
        width=max(len(worst) * (_PICTURE + 10), 520),
    )


def _heat_map(rows: pl.DataFrame, order: list[str]) -> theme.Panel:
    side = min(_LARGEST, max(_SMALLEST, len(order) * _CELL))
    labels = alt.Axis(labels=len(order) <= _MOST_LABELS, ticks=False, domain=False, labelFontSize=9)
    scale = alt.Scale(domain=order, paddingInner=0.04)
    most = float(rows["score"].abs().max() or 1.0)  # type: ignore[arg-type]
    base = alt.Chart(theme.ROWS).encode(
        x=alt.X("mask:N", title="mask declared for", scale=scale, axis=labels),
        y=alt.Y("image:N", title="image", scale=scale, axis=labels),
        tooltip=[
            alt.Tooltip("image:N", title="image"),
            alt.Tooltip("mask:N", title="mask of"),
            alt.Tooltip("score:Q", title="fit", format=".2f"),
        ],
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "score:Q",
            title="fit",
            # Below 0 a pair fits worse than chance, and how much so does not matter.
            scale=alt.Scale(scheme="blues", domain=[0, most], clamp=True),
        )
    )
    best = (
        base.transform_filter("datum.assigned")
        .mark_point(shape="circle", filled=False, color="black", strokeWidth=1.2, opacity=1)
        .encode(size=alt.value(max(8.0, (side / len(order) * 0.6) ** 2)))
    )
    return alt.layer(cells, best).properties(width=side, height=side)


def _picture(item: Worst) -> alt.Chart:
    url = f"data:{item.media};base64,{base64.b64encode(item.data).decode()}"
    picture: alt.Chart = (
        alt.Chart(alt.InlineData(values=[{"url": url, "slice": item.slice_id}]))
        .mark_image(width=_PICTURE, height=_PICTURE, aspect=True)
        .encode(
            url="url:N",
            x=alt.value(_PICTURE / 2),
            y=alt.value(_PICTURE / 2),
            tooltip=alt.Tooltip("slice:N", title="slice"),
        )
        .properties(width=_PICTURE, height=_PICTURE, title=theme.panel_title(item.slice_id))
    )
    return picture
