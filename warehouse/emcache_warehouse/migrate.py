"""Schema of the warehouse: numbered migrations, and the views and seeds that follow them.

A migration is applied once, in order, and never edited afterwards. Views and the paper's figures
are not history: they are made again whenever the package's own differ. The table ``migrations``
holds the name and SHA-256 of every file that has been applied, so that a database can be told from
one of another version.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from enum import Enum

import duckdb

from emcache_warehouse.database import identifier
from emcache_warehouse.packaged import PackagedFile, packaged_files

_LEDGER = """
CREATE TABLE IF NOT EXISTS migrations (
    name       VARCHAR PRIMARY KEY,
    sha256     VARCHAR NOT NULL,
    applied_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE migrations IS 'The files of the package that made this database.';
COMMENT ON COLUMN migrations.name IS 'Migration, view or seed.';
COMMENT ON COLUMN migrations.sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN migrations.applied_at IS 'When it was applied, UTC.';
"""


class SchemaState(Enum):
    """How a database stands to this package."""

    CURRENT = "current"
    """Made by the same files."""
    OLDER = "older"
    """What it lacks can be applied to it."""
    DIVERGED = "diverged"
    """Made by another text of a migration; only a rebuild helps."""
    NEWER = "newer"
    """It has migrations that this package does not know."""


def recorded_files(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Names and SHA-256 of what was applied to a database; empty for one without a ledger."""
    known = connection.execute(
        "SELECT count(*) FROM duckdb_tables() "
        "WHERE database_name = current_database() AND table_name = 'migrations'"
    ).fetchone()
    if known is None or known[0] == 0:
        return {}
    return dict(connection.execute("SELECT name, sha256 FROM migrations").fetchall())


def schema_state(recorded: Mapping[str, str]) -> SchemaState:
    """Compare what was applied to a database with what the package holds."""
    expected = _expected_files()
    migrations = [file.name for file in packaged_files("migrations")]
    if recorded == expected:
        return SchemaState.CURRENT
    applied = sorted(name for name in recorded if name.startswith("migrations/"))
    if not applied:
        return SchemaState.DIVERGED
    if applied[-1] > migrations[-1]:
        return SchemaState.NEWER
    unchanged = all(recorded[name] == expected.get(name) for name in applied)
    if not unchanged or applied != migrations[: len(applied)]:
        return SchemaState.DIVERGED
    return SchemaState.OLDER


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring an empty or older database to the package's schema, in one transaction."""
    connection.execute("BEGIN")
    connection.execute(_LEDGER)
    recorded = recorded_files(connection)
    _drop_views(connection)
    for file in packaged_files("migrations"):
        if file.name not in recorded:
            connection.execute(file.text)
    for file in packaged_files("views"):
        connection.execute(file.text)
    for file in packaged_files("seeds"):
        _replace_seed(connection, file)
    _record(connection, recorded)
    connection.execute("COMMIT")


def _expected_files() -> dict[str, str]:
    return {
        file.name: file.sha256
        for folder in ("migrations", "views", "seeds")
        for file in packaged_files(folder)
    }


def _drop_views(connection: duckdb.DuckDBPyConnection) -> None:
    views = connection.execute(
        "SELECT view_name FROM duckdb_views() "
        "WHERE NOT internal AND database_name = current_database()"
    ).fetchall()
    for (name,) in views:
        connection.execute(f"DROP VIEW IF EXISTS {identifier(name)}")


def _replace_seed(connection: duckdb.DuckDBPyConnection, file: PackagedFile) -> None:
    """Fill the table of the file's name with its rows; columns as in the table, empty is NULL."""
    _, *rows = csv.reader(io.StringIO(file.text))
    connection.execute(f"DELETE FROM {identifier(file.stem)}")  # noqa: S608 - from the package
    with connection.appender(file.stem) as appender:
        appender.append_rows([tuple(field or None for field in row) for row in rows])


def _record(connection: duckdb.DuckDBPyConnection, recorded: Mapping[str, str]) -> None:
    expected = _expected_files()
    gone = [name for name in recorded if name not in expected]
    if gone:
        connection.executemany("DELETE FROM migrations WHERE name = ?", [[name] for name in gone])
    changed = [[name, sha] for name, sha in expected.items() if recorded.get(name) != sha]
    if changed:
        connection.executemany(
            "INSERT OR REPLACE INTO migrations VALUES (?, ?, now() AT TIME ZONE 'UTC')", changed
        )
