"""The schema of the warehouse: made in a new database, and described column by column.

``schema.sql``, the views and the figures of the study make one. A database holds the hash of the
files that made it: one of other files is made again from the records.
"""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

import duckdb
import polars as pl

from emcache.errors import UsageError, suggest
from emcache_warehouse.kinds import KINDS
from emcache_warehouse.packaged import packaged_files, packaged_text
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


def schema_sha256() -> str:
    """Hash over every file that decides what a database holds of the same records."""
    folders = (".", "views", "seeds", "tables")
    files = [file for folder in folders for file in packaged_files(folder)]
    # A kind that gets tables comes again.
    listed = "".join(f"{file.name} {file.sha256}\n" for file in files) + " ".join(sorted(KINDS))
    return hashlib.sha256(listed.encode()).hexdigest()


def make_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every table, view and figure of the study in an empty database."""
    connection.execute("BEGIN")
    connection.execute(packaged_text("schema.sql"))
    for view in packaged_files("views"):
        connection.execute(view.text)
    for seed in packaged_files("seeds"):
        # Columns as in the table of the file's name; an empty field is NULL.
        _, *rows = csv.reader(io.StringIO(seed.text))
        with connection.appender(seed.stem) as appender:
            appender.append_rows([tuple(field or None for field in row) for row in rows])
    connection.execute("INSERT INTO made_by VALUES (?)", [schema_sha256()])
    connection.execute("COMMIT")


def made_by(connection: duckdb.DuckDBPyConnection) -> str | None:
    """The hash that a database holds; None where it is not a warehouse of this kind."""
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
    ).fetchall()
    if ("made_by",) not in tables:
        # Versions before had a ledger of migrations.
        return "" if ("migrations",) in tables else None
    found = connection.execute("SELECT sha256 FROM made_by").fetchone()
    return str(found[0]) if found else ""


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
