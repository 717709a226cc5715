"""Keeping the warehouse up to date with the records.

The live file is never written. What is new goes into a private copy beside it, which is renamed
into place when it is whole: whoever reads keeps the file they opened, and a crash at any moment
leaves the old file. One process at a time does this; others wait for it.

A notebook that writes to the live file and is killed leaves a write-ahead log. DuckDB takes it for
a part of whatever file has the name, and opens no other with it: it is moved aside before a new
file gets the name. What it holds of the old file goes into the copy.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from emcache.errors import WarehouseError
from emcache.progress import Quiet
from emcache.storage import atomic
from emcache.storage.locks import held
from emcache.storage.records import list_record_ids
from emcache_warehouse.build import build, database_state, fill
from emcache_warehouse.checkup import Finding, check
from emcache_warehouse.database import DamagedDatabaseError, write_ahead_logs
from emcache_warehouse.ingest import Ingestion
from emcache_warehouse.migrate import SchemaState
from emcache_warehouse.reading import Problem, read_records

__all__ = ["Finding", "Problem", "SyncReport", "check", "rebuild", "repair", "sync"]


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What :func:`sync` or :func:`rebuild` did."""

    ingested: tuple[str, ...]
    """Identifiers of the records that were added, oldest first."""
    problems: tuple[Problem, ...]
    """Records that were left out, each with the reason and what to do."""
    notes: tuple[str, ...]
    """Sentences about the database itself: moved aside, rebuilt, migrated."""
    changed: bool
    """Whether the file was replaced."""
    seconds: float
    """Wall-clock time."""


def sync(runs: Path, database: Path) -> SyncReport:
    """Ingest the records that the warehouse does not have yet.

    Touches nothing where nothing is new. Records whose folders have gone since are kept.

    Args:
        runs: Folder of the records.
        database: The warehouse's file; made where it is not there.

    Raises:
        WarehouseError: The warehouse is of a newer version, another program writes to it, or its
            folder cannot be written.
    """
    clock = time.perf_counter()
    if _is_current(runs, database):
        return SyncReport((), (), (), changed=False, seconds=time.perf_counter() - clock)
    with _writing(database):
        ingestion, notes, changed = _sync_locked(runs, database)
    return SyncReport(
        ingestion.ingested, ingestion.problems, notes, changed, time.perf_counter() - clock
    )


def rebuild(runs: Path, database: Path) -> SyncReport:
    """Make the warehouse again from the records alone, whatever the old file holds.

    Raises:
        WarehouseError: The folder cannot be written.
    """
    clock = time.perf_counter()
    with _writing(database):
        ingestion, notes = _build_and_publish(runs, database)
    return SyncReport(
        ingestion.ingested,
        ingestion.problems,
        notes,
        changed=True,
        seconds=time.perf_counter() - clock,
    )


def repair(runs: Path, database: Path, findings: Sequence[Finding]) -> SyncReport | None:
    """Fix what :func:`check` found wrong with the database; the records are never touched.

    Args:
        runs: Folder of the records.
        database: The warehouse's file.
        findings: Of :func:`check`.

    Returns:
        What was done, or None where nothing had to be.

    Raises:
        WarehouseError: Rows differ from the records, but making them anew would forget records
            whose folders have gone.
    """
    wrong = {finding.name for finding in findings if finding.verdict != "pass"}
    if "rows" in wrong:
        if "missing" in wrong:
            raise WarehouseError(
                "the rows differ from the records, and making them anew would forget the records "
                "whose folders have gone; restore those folders, or run `emcache warehouse "
                "rebuild` to forget them.",
                subject=database,
            )
        return rebuild(runs, database)
    return sync(runs, database) if wrong & {"database", "pending"} else None


def _is_current(runs: Path, database: Path) -> bool:
    if not database.exists():
        return False
    try:
        state = database_state(database)
    except DamagedDatabaseError:
        return False
    return state.schema is SchemaState.CURRENT and state.ingested.issuperset(list_record_ids(runs))


def _sync_locked(runs: Path, database: Path) -> tuple[Ingestion, tuple[str, ...], bool]:
    """What sync does once no other process writes: the ingestion, notes, and whether it wrote."""
    if not database.exists():
        return *_build_and_publish(runs, database), True
    try:
        return _sync_existing(runs, database)
    except DamagedDatabaseError:
        if aside := _move_logs_aside(database):
            # The file itself may be sound.
            ingestion, notes, changed = _sync_locked(runs, database)
            return ingestion, (*aside, *notes), changed
        with _temporary(database) as path:
            ingestion = build(path, runs)
            damaged = _move_aside(database)
            _publish(path, database)
        note = f"{database.name} was damaged: moved aside as {damaged.name} and made again."
        return ingestion, (note,), True


def _sync_existing(runs: Path, database: Path) -> tuple[Ingestion, tuple[str, ...], bool]:
    state = database_state(database)
    if state.schema is SchemaState.NEWER:
        raise WarehouseError(
            f"{database.name} was made by a newer emcache; upgrade emcache, or run `emcache "
            f"warehouse rebuild` to make it again with this one.",
            subject=database,
        )
    if state.schema is SchemaState.DIVERGED:
        note = f"{database.name} was made with another schema: made again from the records."
        ingestion, aside = _build_and_publish(runs, database)
        return ingestion, (note, *aside), True
    new = [record_id for record_id in list_record_ids(runs) if record_id not in state.ingested]
    records, problems = read_records(runs, new)
    if not records and state.schema is SchemaState.CURRENT:
        return Ingestion((), tuple(problems)), (), False
    notes: tuple[str, ...] = ()
    if state.schema is not SchemaState.CURRENT:
        notes = (f"{database.name} was brought to the schema of this version.",)
    with _temporary(database) as copy:
        shutil.copyfile(database, copy)
        for log in write_ahead_logs(database):
            shutil.copyfile(log, copy.with_name(log.name.replace(database.name, copy.name, 1)))
        ingestion = fill(copy, records)
        changed = bool(ingestion.ingested) or state.schema is not SchemaState.CURRENT
        if changed:
            notes += _publish(copy, database)
    return Ingestion(ingestion.ingested, (*problems, *ingestion.problems)), notes, changed


def _build_and_publish(runs: Path, database: Path) -> tuple[Ingestion, tuple[str, ...]]:
    with _temporary(database) as path:
        ingestion = build(path, runs)
        notes = _publish(path, database)
    return ingestion, notes


def _publish(path: Path, database: Path) -> tuple[str, ...]:
    """Give a whole file the name; what had to go before it could, in sentences."""
    atomic.sync_file(path)
    # First: the old file opens without its log, the new one does not open with it.
    notes = _move_logs_aside(database)
    path.replace(database)
    atomic.sync_folder(database.parent)
    return notes


def _move_aside(database: Path) -> Path:
    return database.replace(
        database.with_name(f"{database.stem}.damaged-{_stamp()}{database.suffix}")
    )


def _move_logs_aside(database: Path) -> tuple[str, ...]:
    logs = write_ahead_logs(database)
    stem = f"{database.stem}.stray-{_stamp()}{database.suffix}"
    for log in logs:
        log.replace(log.with_name(log.name.replace(database.name, stem, 1)))
    if not logs:
        return ()
    return (
        f"{logs[0].name} was left by a program that was killed while it wrote to {database.name}: "
        f"moved aside as {stem}{logs[0].name.removeprefix(database.name)}.",
    )


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")


@contextmanager
def _writing(database: Path) -> Iterator[None]:
    """Be the one process that writes, and clear away what a killed one has left."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = database.with_name(f".{database.name}.lock")
        with held(lock, f"writing {database.name}", Quiet()):
            for stale in database.parent.glob(f"{_temporary_prefix(database)}*"):
                _remove(stale)
            yield
    except OSError as error:
        raise WarehouseError(
            f"{database.name} cannot be written ({error.strerror or error}); check the disk space "
            f"and your rights in the folder of the workspace.",
            subject=database,
        ) from error


@contextmanager
def _temporary(database: Path) -> Iterator[Path]:
    """A name beside the database; whatever lies there at the end is removed."""
    path = database.with_name(f"{_temporary_prefix(database)}{uuid.uuid4().hex[:8]}")
    try:
        yield path
    finally:
        # DuckDB may have left a write-ahead log and a folder for spilled data beside its file.
        for leftover in path.parent.glob(f"{path.name}*"):
            _remove(leftover)


def _temporary_prefix(database: Path) -> str:
    return f".{database.name}.new-"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
