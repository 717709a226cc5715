"""Keeping the warehouse up to date with the records.

The live file is never written. What is new goes into a private copy beside it, which is renamed
into place when it is whole: a reader keeps the file that it opened, and a crash at any moment
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
from emcache.findings import Finding
from emcache.progress import Quiet
from emcache.storage import atomic
from emcache.storage.locks import held
from emcache.storage.records import list_record_ids
from emcache_warehouse.build import build, database_state, fill
from emcache_warehouse.checkup import check
from emcache_warehouse.database import DamagedDatabaseError, write_ahead_logs
from emcache_warehouse.ingest import Ingestion
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
    """Sentences about the database itself: moved aside, or made again and why."""
    changed: bool
    """Whether the file was replaced."""
    seconds: float
    """Wall-clock time."""


def sync(runs: Path, database: Path) -> SyncReport:
    """Make the warehouse hold what the records say, those that have gone no longer.

    Touches nothing where nothing has changed.

    Args:
        runs: Folder of the records.
        database: The warehouse's file; made where it is not there.

    Raises:
        WarehouseError: Another program writes to the warehouse, or its folder cannot be written.
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
    """
    wrong = {finding.name for finding in findings if finding.verdict != "pass"}
    if "rows" in wrong:
        return rebuild(runs, database)
    return sync(runs, database) if wrong & {"warehouse", "pending", "missing"} else None


def _is_current(runs: Path, database: Path) -> bool:
    if not database.exists():
        return False
    try:
        state = database_state(database)
    except DamagedDatabaseError:
        return False
    return state.is_current and state.ingested == set(list_record_ids(runs))


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
    on_disk = list_record_ids(runs)
    if not state.is_current:
        return _made_again(runs, database, "was made by another version of emcache")
    if gone := sorted(state.ingested.difference(on_disk)):
        count = f"{gone[0]} has" if len(gone) == 1 else f"{len(gone)} records ({gone[0]} ...) have"
        return _made_again(
            runs,
            database,
            f"has rows of what has gone: {count} no folder in {runs.name} any more (`emcache "
            f"warehouse export` keeps rows before records go)",
        )
    records, problems = read_records(runs, [name for name in on_disk if name not in state.ingested])
    if not records:
        return Ingestion((), tuple(problems)), (), False
    notes: tuple[str, ...] = ()
    with _temporary(database) as copy:
        shutil.copyfile(database, copy)
        for log in write_ahead_logs(database):
            shutil.copyfile(log, copy.with_name(log.name.replace(database.name, copy.name, 1)))
        ingestion = fill(copy, records)
        changed = bool(ingestion.ingested)
        if changed:
            notes = _publish(copy, database)
    return Ingestion(ingestion.ingested, (*problems, *ingestion.problems)), notes, changed


def _made_again(runs: Path, database: Path, why: str) -> tuple[Ingestion, tuple[str, ...], bool]:
    ingestion, aside = _build_and_publish(runs, database)
    note = f"{database.name} {why}: it was made again from the records."
    return ingestion, (note, *aside), True


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
