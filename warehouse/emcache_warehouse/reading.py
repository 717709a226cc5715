"""Reading records from their folders, and leaving out those that cannot be ingested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from emcache.canonical import canonical_json
from emcache.errors import EmcacheError, RecordError
from emcache.records import Record, read_record
from emcache_warehouse.kinds import KINDS


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that was left out."""

    record_id: str
    """Its folder below ``runs``."""
    message: str
    """Why, and what to do."""


def read_records(runs: Path, ids: Sequence[str]) -> tuple[list[Record], list[Problem]]:
    """Read and verify records: every file's SHA-256, and that nothing their kind needs is missing.

    Returns:
        The sound records, and why the others are not among them.
    """
    records: list[Record] = []
    problems: list[Problem] = []
    for record_id in ids:
        try:
            record = read_record(runs / record_id)
            _check_content(record)
            records.append(record)
        except EmcacheError as error:
            problems.append(Problem(record_id, str(error)))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            # A record.json of another shape, whose checksum matches all the same.
            problems.append(left_out(record_id, str(error) or repr(error)))
    return records, problems


def record_row(record: Record) -> tuple[Any, ...]:
    """The record's row of the table ``records``."""
    content = record.content
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
        record.kind in KINDS,
    )


def left_out(record_id: str, why: str) -> Problem:
    """The sentence for a record that is whole but cannot be ingested."""
    return Problem(
        record_id,
        f"record {record_id} was left out of the warehouse: {why}; restore the folder from a copy, "
        f"or remove it and run the command again.",
    )


def _check_content(record: Record) -> None:
    record_row(record)
    kind = KINDS.get(record.kind)
    if kind is None:
        return
    _check_nothing_missing(
        record,
        "its configuration",
        [key for key in kind.required if record.config.get(key) is None],
    )
    for name, table in kind.files.items():
        if record.has(name):
            held = _parquet_columns(record.file(name))
            _check_nothing_missing(
                record, name, [column for column in table.columns if column not in held]
            )


def _check_nothing_missing(record: Record, place: str, missing: Sequence[str]) -> None:
    if missing:
        problem = left_out(record.id, f"{place} has no {', '.join(missing)}")
        raise RecordError(problem.message, subject=record)


def _parquet_columns(path: Path) -> set[str]:
    try:
        with path.open("rb") as stream:
            return set(pl.read_parquet_schema(stream))
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path.name} is no Parquet file ({error})") from error


def _utc(moment: str) -> datetime:
    """A moment as the naive UTC time that DuckDB's TIMESTAMP holds."""
    return datetime.fromisoformat(moment).astimezone(UTC).replace(tzinfo=None)
