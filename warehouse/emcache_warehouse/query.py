"""Asking the warehouse: one SQL statement in, a polars frame out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import duckdb
import polars as pl

from emcache.errors import UsageError, WarehouseError
from emcache_warehouse.arrow import ArrowStream
from emcache_warehouse.database import identifier, is_damage, open_readonly
from emcache_warehouse.named import NamedQuery, Parameter, list_queries, named_query

__all__ = [
    "NamedQuery",
    "Parameter",
    "list_queries",
    "named_query",
    "parse_value",
    "run_named_query",
    "run_query",
]

_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")
_NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}

# Types that polars cannot hold; they become text.
_FOREIGN_TYPE = re.compile(
    r"\b(INTERVAL|UNION|BIGNUM|VARIANT|GEOMETRY|BIT|TIME WITH TIME ZONE|TIME_NS)\b"
)
_MOST_CANDIDATES = 5


def run_query(database: Path, sql: str, parameters: Mapping[str, str]) -> pl.DataFrame:
    """Answer one SQL statement, without the possibility of changing anything.

    Args:
        database: The warehouse's file.
        sql: One statement; ``$name`` stands for a parameter.
        parameters: Values as typed, see :func:`parse_value`.

    Raises:
        UsageError: A parameter is missing or unknown, or there is not exactly one statement.
        WarehouseError: DuckDB refuses the statement; its own message, with the position.
    """
    connection = open_readonly(database)
    try:
        statement = _single_statement(connection, sql)
        _check_parameters(statement.named_parameters, parameters)
        values = {name: parse_value(text) for name, text in parameters.items()}
        return _fetch(connection, sql, values)
    except duckdb.Error as error:
        raise WarehouseError(_message(connection, error), subject=sql) from error
    finally:
        connection.close()


def run_named_query(
    database: Path, name: str, parameters: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """Answer a named query, with its defaults for what is not given.

    Raises:
        UsageError: There is no such query or parameter.
        WarehouseError: The warehouse cannot be read.
    """
    query = named_query(name)
    return run_query(database, query.sql, query.with_defaults(parameters or {}))


def parse_value(text: str) -> int | float | bool | str | None:
    """The value that ``-p name=text`` means.

    ``3`` is an integer, ``0.5`` and ``1e-3`` are numbers, ``true``, ``false`` and ``null`` are
    themselves in any case; anything else is text, and so is what stands in double quotes
    (``"3"``) or has leading zeros (``007``).
    """
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return _WORDS.get(text.lower(), text)


def _single_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(
            f"{len(statements) or 'no'} statements were given where one is expected; "
            f"{'ask them one at a time' if statements else 'write a SELECT'}.",
            subject=sql,
        )
    return statements[0]


def _check_parameters(expected: Collection[str], given: Collection[str]) -> None:
    takes = (
        f"the statement takes {', '.join(sorted(expected))}" if expected else "it takes none at all"
    )
    if missing := sorted(set(expected) - set(given)):
        raise UsageError(
            f"no value for the parameter {', '.join(missing)}; give it with -p {missing[0]}=VALUE.",
            subject=missing,
        )
    if unknown := sorted(set(given) - set(expected)):
        raise UsageError(
            f"the statement has no parameter {', '.join(unknown)}; {takes}.", subject=unknown
        )


def _fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, object]
) -> pl.DataFrame:
    try:
        relation = connection.sql(sql, params=dict(values))
        if relation is None:
            return pl.DataFrame()
        _check_columns(relation.columns)
        relation = _as_polars_types(relation)
        return _plain_integers(pl.DataFrame(ArrowStream(relation.__arrow_c_stream__())))
    except duckdb.Error as error:
        # Relations leave the position out of some messages that statements put it into.
        if "LINE " not in str(error) and not isinstance(error, duckdb.OperationalError):
            connection.execute(sql, dict(values))
        raise


def _check_columns(columns: Collection[str]) -> None:
    repeated = [name for name, times in Counter(columns).items() if times > 1]
    if repeated:
        raise WarehouseError(
            f"the result has more than one column named {repeated[0]}; rename one with AS.",
            subject=repeated,
        )


def _as_polars_types(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    names = list(zip(relation.columns, map(str, relation.types), strict=True))
    if not any(_FOREIGN_TYPE.search(kind) for _, kind in names):
        return relation
    return relation.project(
        ", ".join(
            f"CAST({identifier(name)} AS VARCHAR) AS {identifier(name)}"
            if _FOREIGN_TYPE.search(kind)
            else identifier(name)
            for name, kind in names
        )
    )


def _plain_integers(frame: pl.DataFrame) -> pl.DataFrame:
    """Sums of integers are HUGEINT, which arrives as a decimal; make them integers again."""
    return frame.with_columns(
        frame[name].cast(pl.Int64)
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.Decimal)
        and kind.scale == 0
        and frame[name].cast(pl.Int64, strict=False).null_count() == frame[name].null_count()
    )


def _message(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> str:
    """DuckDB's own message; of the overloads that it lists, the first few."""
    lines = [line for line in str(error).rstrip().splitlines() if line.strip()]
    candidates = [line for line in lines if line.startswith("\t")]
    dropped = set(candidates[_MOST_CANDIDATES + 1 :])
    lines = [line for line in lines if line not in dropped]
    if lines[0].startswith("Catalog Error: Table with name"):
        # DuckDB's suggestion is likely one of its system tables.
        lines = [line for line in lines if not line.startswith("Did you mean")]
        lines.insert(1, f"The tables and views are {', '.join(_table_names(connection))}.")
    if is_damage(error):
        lines.append("The warehouse is damaged; run `emcache warehouse rebuild`.")
    return "\n".join(lines)


def _table_names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
