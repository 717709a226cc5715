"""The dictionary of the warehouse: every table and view, every column, and what it means."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from emcache.errors import UsageError, suggest
from emcache_warehouse.query import run_query

# A view's column means what the table's column of the same name means, unless it says otherwise.
_SCHEMA = """
WITH named AS (
    SELECT table_name AS name, 'table' AS kind, comment FROM duckdb_tables()
    WHERE database_name = current_database()
    UNION ALL
    SELECT view_name, 'view', comment FROM duckdb_views()
    WHERE database_name = current_database() AND NOT internal
),
columns AS (
    SELECT table_name AS name, column_name, column_index, data_type, comment
    FROM duckdb_columns()
    WHERE database_name = current_database() AND NOT internal
),
meanings AS (
    SELECT column_name, arg_min(columns.comment, (named.kind, named.name)) AS comment
    FROM columns JOIN named USING (name)
    WHERE columns.comment IS NOT NULL
    GROUP BY column_name
)
SELECT
    named.kind,
    named.name,
    named.comment AS purpose,
    columns.column_name AS "column",
    columns.data_type AS "type",
    coalesce(columns.comment, meanings.comment) AS meaning
FROM named
JOIN columns USING (name)
LEFT JOIN meanings USING (column_name)
ORDER BY named.kind, named.name, columns.column_index
"""


def describe_schema(database: Path, table: str | None = None) -> pl.DataFrame:
    """One row per column: kind (table or view), name, purpose, column, type, meaning.

    Args:
        database: The warehouse's file.
        table: A table or view; None for all of them.

    Raises:
        UsageError: There is no such table.
        WarehouseError: The database is not there or cannot be read.
    """
    every = run_query(database, _SCHEMA, {})
    if table is None:
        return every
    names = every["name"].unique(maintain_order=True).to_list()
    if table not in names:
        hint = suggest(table, names)
        raise UsageError(
            f"there is no table or view {table!r}; {hint}Known: {', '.join(sorted(names))}.",
            subject=table,
        )
    return every.filter(pl.col("name") == table)
