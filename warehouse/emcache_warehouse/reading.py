"""Reading records from their folders, and leaving out those that cannot be ingested.

What a batch of thousands can be spared is done for those that fail alone: a Parquet file is read by
itself when DuckDB has refused it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from emcache.errors import EmcacheError, RecordError
from emcache.storage.hashing import canonical_json
from emcache.storage.records import Record, read_record
from emcache_warehouse.database import first_line, literal_path, memory_database
from emcache_warehouse.kinds import KINDS


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that was left out."""

    record_id: str
    """Its folder below ``runs``."""
    message: str
    """Why, and what to do."""


@dataclass(frozen=True, slots=True)
class SoundRecord:
    """A record whose checksums match, with what the table ``records`` holds of it."""

    record: Record
    row: tuple[Any, ...]


def read_records(runs: Path, ids: Sequence[str]) -> tuple[list[SoundRecord], list[Problem]]:
    """Read and verify records: every file's SHA-256, and the configuration that their kind needs.

    Returns:
        The sound records, and why the others are not among them.
    """
    records: list[SoundRecord] = []
    problems: list[Problem] = []
    for record_id in ids:
        try:
            record = read_record(runs / record_id)
            records.append(SoundRecord(record, _row(record)))
        except EmcacheError as error:
            gone = not (runs / record_id).exists()
            problems.append(_removed(record_id) if gone else Problem(record_id, str(error)))
    return records, problems


def explain_refusal(record: Record, reason: str) -> Problem:
    """Why DuckDB refused a record: a file or column at fault, or its own words."""
    if not record.folder.exists():
        return _removed(record.id)
    kind = KINDS.get(record.kind)
    for name, table in kind.files.items() if kind else ():
        if record.has(name):
            try:
                held = _parquet_columns(record.file(name))
            except (duckdb.Error, UnicodeDecodeError) as error:
                # A message of DuckDB that is not text itself cannot be shown.
                why = first_line(str(error)) if isinstance(error, duckdb.Error) else "no UTF-8"
                return left_out(record.id, f"{name} cannot be read as Parquet ({why})")
            if missing := [column for column in table.columns if column not in held]:
                return _missing(record, name, missing)
    return left_out(record.id, reason)


def _row(record: Record) -> tuple[Any, ...]:
    content = record.content
    kind = KINDS.get(record.kind)
    if kind and (missing := [key for key in kind.required if record.config.get(key) is None]):
        raise RecordError(_missing(record, "its configuration", missing).message, subject=record)
    return (
        record.id,
        record.kind,
        str(content["status"]),
        _utc(content["started_at"]),
        _utc(content["finished_at"]),
        float(content["seconds"]),
        canonical_json(content["versions"]),
        canonical_json(content["host"]),
        canonical_json(dict(record.config)),
    )


def left_out(record_id: str, why: str) -> Problem:
    """The sentence for a record that is whole but cannot be ingested."""
    return Problem(
        record_id,
        f"record {record_id} was left out of the warehouse: {why}; restore the folder from a copy, "
        f"or remove it and run the command again.",
    )


def _removed(record_id: str) -> Problem:
    return Problem(
        record_id,
        f"record {record_id} was left out of the warehouse: its folder was removed while the "
        f"records were read; restore it from a copy if it was not meant to go.",
    )


def _missing(record: Record, place: str, missing: Sequence[str]) -> Problem:
    return left_out(record.id, f"{place} has no {', '.join(missing)}")


def _parquet_columns(path: Path) -> set[str]:
    """The columns of a file of which everything was read."""
    with memory_database() as connection:
        connection.execute(
            "CREATE TABLE held AS FROM read_parquet($file, hive_partitioning = false)",
            {"file": literal_path(path)},
        )
        return set(connection.table("held").columns)


def _utc(moment: str) -> datetime:
    """A moment as the naive UTC time that DuckDB's TIMESTAMP holds."""
    return datetime.fromisoformat(moment).astimezone(UTC).replace(tzinfo=None)
