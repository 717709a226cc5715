"""Opening DuckDB databases.

A database is opened for reading by attaching it to an in-memory one. ``duckdb.connect(path)``
shares one instance per path and process: after the file has been replaced, a notebook that still
holds a connection would be given the old content again. An attached file is opened afresh.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from emcache.errors import WarehouseError

CATALOG = "warehouse"
"""Name under which an opened warehouse is attached."""

_DAMAGE = (
    "Corrupt database file",
    "not a valid DuckDB database file",
    "Could not read enough bytes",
    "Failed to deserialize",
    "Serialization Error",
    "INTERNAL Error",
    "FATAL Error",
)

# What DuckDB keeps beside a file that it writes to; all of it stays where the program is killed.
_LOGS = (".wal", ".wal.checkpoint", ".wal.recovery")

# The library reads no Python variables and fetches no extensions.
_CLOSED_WORLD: dict[str, str | bool | int | float | list[str]] = {
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class DamagedDatabaseError(WarehouseError):
    """The file is not a DuckDB database, or one whose checksums or write-ahead log do not match."""


def open_readonly(database: Path) -> duckdb.DuckDBPyConnection:
    """Open a warehouse for questions: nothing can be written, no file read, no setting changed.

    Returns:
        A connection whose default catalog is the warehouse. Close it.

    Raises:
        WarehouseError: There is no such file, it is damaged, or another program writes to it.
    """
    connection = attach_readonly(database)
    try:
        # No spilling: a question leaves no temporary files behind.
        connection.execute("SET temp_directory = ''")
        connection.execute("SET enable_external_access = false")
        # That setting still allows the files of attached databases: COPY would write over the
        # warehouse. It is open by now; nothing needs to be opened after it.
        connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def attach_readonly(database: Path) -> duckdb.DuckDBPyConnection:
    """Open a database without locking the configuration; see :func:`open_readonly`.

    Raises:
        WarehouseError: There is no such file, it is damaged, or another program writes to it.
    """
    if not database.exists():
        raise WarehouseError(
            f"there is no {database.name} yet; run `emcache warehouse sync` to make it from the "
            f"records.",
            subject=database,
        )
    connection = duckdb.connect(":memory:", config=_CLOSED_WORLD)
    try:
        connection.execute(f"ATTACH {quote(str(database))} AS {CATALOG} (READ_ONLY)")
        connection.execute(f"USE {CATALOG}")
    except duckdb.Error as error:
        connection.close()
        raise opening_error(database, error) from error
    return connection


@contextmanager
def private_database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a file of this process alone for writing; checkpoint and close it at the end.

    Args:
        path: A file of this process alone; made where it is not there.

    Raises:
        WarehouseError: The path has a character that DuckDB does not take literally.
    """
    # DuckDB puts the ending of its write-ahead log before a question mark, and takes a backslash
    # for a slash.
    named = {"?": "a question mark", "\\": "a backslash"}
    if letter := next((letter for letter in named if letter in str(path)), None):
        raise WarehouseError(
            f"the path of the warehouse has {named[letter]}, which DuckDB cannot write to; rename "
            f"the folder.",
            subject=path,
        )
    connection = duckdb.connect(str(path), config=_CLOSED_WORLD)
    try:
        yield connection
        connection.execute("CHECKPOINT")
    finally:
        connection.close()


@contextmanager
def memory_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database that leaves nothing behind."""
    with duckdb.connect(":memory:", config=_CLOSED_WORLD) as connection:
        connection.execute("SET temp_directory = ''")
        yield connection


def is_damage(error: duckdb.Error) -> bool:
    """Whether DuckDB complains about the bytes of the database file, not about a statement."""
    return any(phrase in str(error) for phrase in _DAMAGE)


def opening_error(database: Path, error: duckdb.Error) -> WarehouseError:
    """The sentence for a database that DuckDB cannot open."""
    message = str(error).replace(str(database), database.name)
    if "Conflicting lock" in message:
        return WarehouseError(
            f"another program has {database.name} open for writing, so it cannot be read; close "
            f"that program, or open the file read-only there.",
            subject=database,
        )
    if write_ahead_logs(database) and ("WAL" in message or ".wal" in message):
        return DamagedDatabaseError(
            f"{database.name} cannot be opened with the write-ahead log that a killed program left "
            f"beside it ({first_line(message)}); run `emcache warehouse sync`, which moves the log "
            f"aside.",
            subject=database,
        )
    if "version number" in message:
        return WarehouseError(
            f"{database.name} was written by a newer DuckDB; upgrade emcache, or run `emcache "
            f"warehouse rebuild` to make it again from the records.",
            subject=database,
        )
    if is_damage(error):
        return DamagedDatabaseError(
            f"{database.name} is damaged ({first_line(message)}); run `emcache warehouse rebuild` "
            f"to make it again from the records.",
            subject=database,
        )
    return WarehouseError(
        f"{database.name} cannot be opened ({first_line(message)}); check that it "
        f"is a file you may read.",
        subject=database,
    )


def write_ahead_logs(database: Path) -> list[Path]:
    """What lies beside a file since a program that wrote to it was killed, or while it writes."""
    logs = (database.with_name(database.name + ending) for ending in _LOGS)
    return [log for log in logs if log.exists()]


def quote(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A quoted name of SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal_path(path: Path) -> str:
    """A path in which DuckDB finds no wildcards."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def first_line(message: str) -> str:
    """The first line of a DuckDB message, without its full stop."""
    return message.splitlines()[0].rstrip(".!") if message else "no message"
