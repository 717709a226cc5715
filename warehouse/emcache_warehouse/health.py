"""Records and warehouse, as ``emcache doctor`` looks at them; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emcache.errors import EmcacheError
from emcache.findings import Finding, Verdict, guarded, of_error
from emcache.storage.records import list_record_ids, read_record
from emcache_warehouse import checkup
from emcache_warehouse.build import database_state

_MOST_DAMAGED = 5
_RESTORE = "restore its folder from a copy, or remove it"


def examine_warehouse(runs: Path, database: Path, *, thorough: bool = False) -> list[Finding]:
    """Look at the records and at the index over them.

    Args:
        runs: Folder of the records.
        database: The warehouse's file.
        thorough: Compare every record with its checksums and every row with a rebuild; otherwise
            sizes, schema and identifiers alone.

    Returns:
        ``records``, ``warehouse``, ``pending``, ``missing`` and, if thorough, ``rows``, as
        :func:`emcache_warehouse.checkup.check` has them; a damaged record has a finding of its own.
    """
    return guarded("warehouse", lambda: _look(runs, database, thorough))


def _look(runs: Path, database: Path, thorough: bool) -> Iterator[Finding]:
    if thorough and database.exists():
        yield from checkup.check(runs, database)
        return
    on_disk = list_record_ids(runs)
    problems = {
        record_id: problem
        for record_id in on_disk
        if (problem := _problem(runs / record_id, thorough))
    }
    yield from _records(len(on_disk), list(problems.values()), thorough)
    if database.exists():
        yield from _database(database, set(on_disk), set(on_disk) - set(problems))
    elif on_disk:
        yield Finding(
            "warehouse",
            Verdict.WARN,
            f"There is no {database.name} yet.",
            "`emcache warehouse sync`, or any query, makes it",
        )
    else:
        yield Finding("warehouse", Verdict.PASS, "Nothing to index yet.")


def _records(count: int, problems: list[Finding], thorough: bool) -> Iterator[Finding]:
    yield from problems[:_MOST_DAMAGED]
    if len(problems) > _MOST_DAMAGED:
        yield Finding(
            "records",
            Verdict.FAIL,
            f"{len(problems) - _MOST_DAMAGED} more of {count} records are damaged.",
            "`emcache warehouse check` lists them all",
        )
    if not problems:
        how = "every checksum matches" if thorough else "every file is there with its size"
        yield Finding("records", Verdict.PASS, f"{count} records, {how}." if count else "None yet.")


def _problem(folder: Path, thorough: bool) -> Finding | None:
    """What is wrong with a record, if anything."""
    try:
        record = read_record(folder, verify_files=thorough)
        for name, facts in record.content["files"].items():
            size = (folder / name).stat().st_size
            if size != facts["bytes"]:
                why = f"{name} has {size} bytes instead of {facts['bytes']}"
                return Finding("records", Verdict.FAIL, f"Record {folder.name}: {why}.", _RESTORE)
    except EmcacheError as error:
        return of_error("records", error)
    except FileNotFoundError as error:
        why = f"{Path(error.filename).relative_to(folder)} is missing"
    except OSError as error:
        why = f"{error.filename} cannot be read ({error.strerror})"
    else:
        return None
    return Finding("records", Verdict.FAIL, f"Record {folder.name}: {why}.", _RESTORE)


def _database(database: Path, on_disk: set[str], sound: set[str]) -> Iterator[Finding]:
    try:
        state = database_state(database)
    except EmcacheError as error:
        yield of_error("warehouse", error)
        return
    yield checkup.schema_finding(state)
    if state.is_current:
        yield checkup.pending_finding(sound - state.ingested)
        yield checkup.missing_finding(state.ingested - on_disk)
