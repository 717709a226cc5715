"""One colour for each dataset, whichever chart it stands in."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from emcache_warehouse.charts import theme
from emcache_warehouse.query import run_query

COLOUR = "colour"
"""Column of the rows with the colour of their dataset."""


def with_colours(database: Path, rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """Rows with the colours of their datasets, in the order in which these were added.

    Args:
        database: The warehouse's file.
        rows: Of a chart.
        column: Which names a dataset, or a split of one as ``vnc:stack2``; others have no colour.

    Raises:
        WarehouseError: The warehouse cannot be read.
    """
    known = run_query(database, "SELECT dataset FROM datasets ORDER BY record_id", {})
    names = known["dataset"].to_list() if known.height else []
    palette = {name: theme.PALETTE[i % len(theme.PALETTE)] for i, name in enumerate(names)}
    dataset = pl.col(column).str.split(":").list.first()
    return rows.with_columns(
        dataset.replace_strict(palette, default=None, return_dtype=pl.String).alias(COLOUR)
    )


def colours_of(rows: pl.DataFrame, column: str, names: list[str]) -> list[str]:
    """A colour for each name in a column, no two alike while the palette lasts.

    Args:
        rows: As :func:`with_colours` gives them, or without colours.
        column: Which has the names.
        names: Those to colour.
    """
    wished: dict[str, str | None] = {}
    if COLOUR in rows.columns:
        wished = dict(rows.select(column, COLOUR).unique(column, maintain_order=True).iter_rows())
    return theme.colours(names, [wished.get(name) for name in names])
