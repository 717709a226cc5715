"""Records into tables.

Every record becomes a row of ``records``; what a kind has beyond that is cut from its ``config``
and its Parquet files by the statements in ``tables/*.sql``. A batch is one transaction. Where one
fails, its halves are tried, and so on down to the record at fault: that one is left out and
reported, the others are kept.

Some Parquet files whose checksums match make DuckDB fail as if the database were at fault, or leave
its connection useless. Which records they belong to is found out in databases in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from emcache_warehouse.database import first_line, is_damage, literal_path, memory_database
from emcache_warehouse.kinds import KINDS
from emcache_warehouse.packaged import packaged_text
from emcache_warehouse.reading import Problem, SoundRecord, explain_refusal

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Ingestion:
    """What became of some records."""

    ingested: tuple[str, ...]
    """Identifiers of the records that are in the tables now."""
    problems: tuple[Problem, ...]
    """The records that are not."""


def ingest(connection: duckdb.DuckDBPyConnection, records: Sequence[SoundRecord]) -> Ingestion:
    """Add verified records to the tables, but for those that are in them already.

    Raises:
        duckdb.Error: The database itself fails (damaged, disk full), or it seems to:
            :func:`find_unreadable` tells.
    """
    there = {name for (name,) in connection.execute("SELECT record_id FROM records").fetchall()}
    missing = [item for item in records if item.record.id not in there]
    problems: list[Problem] = []
    for batch in _batches(missing):
        problems.extend(_ingest_batch(connection, batch))
    skipped = {problem.record_id for problem in problems}
    return Ingestion(
        tuple(item.record.id for item in records if item.record.id not in skipped),
        tuple(problems),
    )


def find_unreadable(records: Sequence[SoundRecord]) -> list[Problem]:
    """Which records DuckDB cannot read, whatever it says of them; no other database is touched."""
    return [problem for batch in _batches(records) for problem in _unreadable(batch)]


def _batches(records: Sequence[SoundRecord]) -> Iterator[Sequence[SoundRecord]]:
    for start in range(0, len(records), _BATCH):
        yield records[start : start + _BATCH]


def _unreadable(records: Sequence[SoundRecord]) -> list[Problem]:
    try:
        with memory_database() as connection:
            connection.execute(packaged_text("schema.sql"))
            return list(_ingest_batch(connection, records))
    except duckdb.Error as error:
        if len(records) == 1:
            return [explain_refusal(records[0].record, first_line(str(error)))]
        middle = len(records) // 2
        return _unreadable(records[:middle]) + _unreadable(records[middle:])


def _ingest_batch(
    connection: duckdb.DuckDBPyConnection, records: Sequence[SoundRecord]
) -> Iterator[Problem]:
    try:
        connection.execute("BEGIN")
        _insert(connection, records)
        connection.execute("COMMIT")
    except (
        duckdb.DataError,
        duckdb.IntegrityError,
        duckdb.NotSupportedError,
        duckdb.ProgrammingError,
    ) as error:
        connection.execute("ROLLBACK")
        if is_damage(error):
            raise
        if len(records) == 1:
            yield explain_refusal(records[0].record, first_line(str(error)))
            return
        middle = len(records) // 2
        yield from _ingest_batch(connection, records[:middle])
        yield from _ingest_batch(connection, records[middle:])


def _insert(connection: duckdb.DuckDBPyConnection, records: Sequence[SoundRecord]) -> None:
    with connection.appender("records") as appender:
        appender.append_rows([item.row for item in records])
    for name, kind in KINDS.items():
        mine = [item.record for item in records if item.record.kind == name]
        if not mine:
            continue
        _execute(connection, kind.rows, {"ids": [record.id for record in mine]})
        for file, table in kind.files.items():
            paths = [literal_path(record.file(file)) for record in mine if record.has(file)]
            if paths:
                _execute(connection, table.statement, {"files": paths})
    _rename_datasets(connection)


def _rename_datasets(connection: duckdb.DuckDBPyConnection) -> None:
    """Give rows the names that datasets have today; oldest renaming first, each as often as asked.

    Records come in any order, so all renamings are gone through again.
    """
    renamings = connection.execute("FROM dataset_renames ORDER BY rename_id").fetchall()
    for rename_id, old_name, new_name in renamings:
        parameters = {"rename_id": rename_id, "old_name": old_name, "new_name": new_name}
        _execute(connection, "tables/renaming.sql", parameters)


def _execute(
    connection: duckdb.DuckDBPyConnection, name: str, parameters: Mapping[str, Any]
) -> None:
    """Run a packaged script; DuckDB takes parameters for single statements only."""
    for statement in connection.extract_statements(packaged_text(name)):
        values = {key: parameters[key] for key in statement.named_parameters}
        try:
            connection.execute(statement, values)
        except UnicodeDecodeError as error:
            # DuckDB's message repeats bytes of a file, and its bindings take them for text.
            raise duckdb.Error("a Parquet file holds text that is not UTF-8") from error
