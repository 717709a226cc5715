"""Slices in the plane of their first two principal components, with their pictures."""

from __future__ import annotations

import altair as alt
import polars as pl

from emcache.errors import WarehouseError
from emcache_warehouse.charts import theme
from emcache_warehouse.charts.colours import colours_of
from emcache_warehouse.charts.gap import with_panels

_SIDE = 300
_COLUMNS = 2
_OWN_PICTURE = "data:image/"
_PICTURES = alt.NamedData("pictures")


def pca_chart(rows: pl.DataFrame) -> alt.VConcatChart:
    """Draw every slice as a point, a panel for each backbone and regime.

    Args:
        rows: Columns of the named query ``gap-points``.

    Raises:
        WarehouseError: There are no rows.
    """
    if rows.is_empty():
        raise WarehouseError(
            "no gap has been measured yet, so there are no components to draw; measure one with "
            "`emcache gap DATASET DATASET --backbone NAME`."
        )
    # Vega's tooltip shows a value called image as a picture.
    rows = with_panels(rows).with_columns(slice=pl.format("{}/{}", "domain", "slice_id"))
    # Measurements of one backbone on several sets of domains have a panel each.
    sets = pl.col("domain").unique(maintain_order=True).str.join(", ").over("gap_id")
    alike = pl.col("gap_id").n_unique().over("panel") > 1
    rows = rows.with_columns(
        panel=pl.when(alike).then(pl.format("{}: {}", "panel", sets)).otherwise("panel")
    )
    # A picture is part of the chart; an address elsewhere would be fetched on opening it.
    own = pl.col("thumbnail").str.starts_with(_OWN_PICTURE)
    pictures = rows.select("slice", image=pl.when(own).then("thumbnail")).unique(
        "slice", maintain_order=True
    )
    # Thousands of rows: what the panel's title says is not repeated in each.
    rows = rows.drop("thumbnail", "recipe_sha256", "backbone_setup")
    domains = rows["domain"].unique(maintain_order=True).to_list()
    colours = colours_of(rows, "domain", domains)
    panels = [
        _panel(rows.filter(pl.col("panel") == panel), domains, colours)
        for panel in rows["panel"].unique(maintain_order=True)
    ]
    lines = [
        alt.hconcat(*panels[start : start + _COLUMNS], spacing=30)
        for start in range(0, len(panels), _COLUMNS)
    ]
    chart: alt.VConcatChart = alt.vconcat(*lines, spacing=26)
    whole = theme.finished(
        chart,
        rows.to_dicts(),
        "Slices in the plane of their principal components",
        ["mean of the patch tokens; components fitted to all domains of a panel jointly"],
        width=min(len(panels), _COLUMNS) * (_SIDE + 60.0),
    )
    # Each picture once, however many panels its slice stands in.
    whole.datasets = {**whole.datasets, _PICTURES.name: pictures.to_dicts()}
    return whole


def _panel(rows: pl.DataFrame, domains: list[str], colours: list[str]) -> alt.Chart:
    first = rows.row(0, named=True)
    count = len(domains)
    titles = [f"component {i} ({first[f'explained{i}']:.0%} of the variance)" for i in (1, 2)]
    zoomed = alt.Scale(zero=False, nice=True)
    # Colour and shape say the same, for print in grey and for eyes that see few colours.
    legend = alt.Legend(title=None, orient="bottom", columns=4)
    panel: alt.Chart = (
        alt.Chart(theme.ROWS)
        .transform_filter(alt.FieldEqualPredicate(field="panel", equal=first["panel"]))
        .transform_lookup(
            lookup="slice", from_=alt.LookupData(data=_PICTURES, key="slice", fields=["image"])
        )
        .mark_point(filled=True, size=46, opacity=0.85)
        .encode(
            x=alt.X("pc1:Q", title=titles[0], scale=zoomed),
            y=alt.Y("pc2:Q", title=titles[1], scale=zoomed),
            color=alt.Color(
                "domain:N",
                scale=alt.Scale(domain=domains, range=colours),
                legend=legend,
            ),
            shape=alt.Shape(
                "domain:N",
                scale=alt.Scale(
                    domain=domains,
                    range=[theme.SHAPES[i % len(theme.SHAPES)] for i in range(count)],
                ),
                legend=legend,
            ),
            tooltip=[
                alt.Tooltip("domain:N"),
                alt.Tooltip("slice_id:N", title="slice"),
                alt.Tooltip("image:N"),
            ],
        )
        .properties(width=_SIDE, height=_SIDE, title=theme.panel_title(first["panel"]))
    )
    return panel
