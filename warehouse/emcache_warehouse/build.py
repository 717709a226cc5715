"""Filling a database file of this process alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from emcache.errors import WarehouseError
from emcache.storage.records import list_record_ids
from emcache_warehouse.database import (
    DamagedDatabaseError,
    attach_readonly,
    first_line,
    is_damage,
    private_database,
)
from emcache_warehouse.ingest import Ingestion, find_unreadable, ingest
from emcache_warehouse.reading import Problem, SoundRecord, read_records
from emcache_warehouse.schema import made_by, make_schema, schema_sha256


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What a database file holds."""

    is_current: bool
    """Whether its schema is the package's."""
    ingested: frozenset[str]
    """Identifiers of the records that are in it; none where the schema is another one."""


def database_state(database: Path) -> DatabaseState:
    """Look into a database file.

    Raises:
        DamagedDatabaseError: Its bytes are damaged, or it is not a warehouse.
        WarehouseError: It is not there, or another program writes to it.
    """
    connection = attach_readonly(database)
    try:
        made = made_by(connection)
        if made is None:
            raise DamagedDatabaseError(
                f"{database.name} is a DuckDB database but not a warehouse; run `emcache warehouse "
                f"rebuild` to replace it by one made from the records.",
                subject=database,
            )
        if made != schema_sha256():
            return DatabaseState(False, frozenset())
        ids = connection.execute("SELECT record_id FROM records").fetchall()
        return DatabaseState(True, frozenset(record_id for (record_id,) in ids))
    except duckdb.Error as error:
        raise DamagedDatabaseError(
            f"{database.name} cannot be read ({first_line(str(error))}); run `emcache warehouse "
            f"rebuild` to make it again from the records.",
            subject=database,
        ) from error
    finally:
        connection.close()


def fill(path: Path, records: Sequence[SoundRecord]) -> Ingestion:
    """Ingest verified records into a private database file.

    Args:
        path: A file of this process alone: a copy of a warehouse, or not there.
        records: What to add.

    Raises:
        DamagedDatabaseError: The copy is damaged.
        WarehouseError: DuckDB cannot write the file.
    """
    unreadable: list[Problem] = []
    while True:
        try:
            with private_database(path) as connection:
                if made_by(connection) is None:
                    make_schema(connection)
                ingestion = ingest(connection, records)
        except duckdb.Error as error:
            found = find_unreadable(records)
            if not found:
                raise _filling_error(path, error) from error
            # The connection may be of no more use, so all is begun again without those.
            unreadable += found
            names = {problem.record_id for problem in found}
            records = [item for item in records if item.record.id not in names]
        else:
            return Ingestion(ingestion.ingested, (*unreadable, *ingestion.problems))


def _filling_error(path: Path, error: duckdb.Error) -> WarehouseError:
    reason = first_line(str(error))
    if is_damage(error):
        return DamagedDatabaseError(
            f"the warehouse is damaged ({reason}); run `emcache warehouse rebuild`.", subject=path
        )
    return WarehouseError(
        f"the warehouse could not be written ({reason}); check the disk space and the memory.",
        subject=path,
    )


def build(path: Path, runs: Path) -> Ingestion:
    """Make a database from all records.

    Raises:
        WarehouseError: DuckDB cannot write the file.
    """
    records, problems = read_records(runs, list_record_ids(runs))
    ingestion = fill(path, records)
    return Ingestion(ingestion.ingested, (*problems, *ingestion.problems))
