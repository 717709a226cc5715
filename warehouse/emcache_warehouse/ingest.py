"""Records into tables.

Every record becomes a row of ``records``; what a kind has beyond that is cut from its ``config``
and its Parquet files by the statements in ``tables/*.sql``. A batch is one transaction. Where one
fails, its halves are tried, and so on down to the record at fault: that one is left out and
reported, the others are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from emcache_warehouse.database import first_line, is_damage
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
    """Add verified records to the tables.

    Raises:
        duckdb.Error: The database itself fails (damaged, disk full), whatever the records say.
    """
    problems: list[Problem] = []
    remaining = iter(records)
    while batch := list(islice(remaining, _BATCH)):
        problems.extend(_ingest_batch(connection, batch))
    skipped = {problem.record_id for problem in problems}
    return Ingestion(
        tuple(item.record.id for item in records if item.record.id not in skipped),
        tuple(problems),
    )


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
            paths = [_literal_path(record.file(file)) for record in mine if record.has(file)]
            if paths:
                _execute(connection, table.statement, {"files": paths})


def _execute(
    connection: duckdb.DuckDBPyConnection, name: str, parameters: Mapping[str, Any]
) -> None:
    """Run a packaged script; DuckDB takes parameters for single statements only."""
    for statement in connection.extract_statements(packaged_text(name)):
        connection.execute(statement, {key: parameters[key] for key in statement.named_parameters})


def _literal_path(path: Path) -> str:
    """A path in which DuckDB finds no wildcards."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
