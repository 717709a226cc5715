"""Asking the warehouse: one SQL statement in, a polars frame out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import duckdb
import polars as pl

from emcache.errors import UsageError, WarehouseError
from emcache_warehouse.arrow import ArrowStream
from emcache_warehouse.database import attach_readonly, identifier, is_damage, open_readonly
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

# Integers of more digits than DuckDB's largest are text, as everything that is not a number.
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,37})")
_NUMBER = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}

# Types that polars cannot hold; they become text.
_FOREIGN_TYPE = re.compile(
    r"\b(INTERVAL|UNION|BIGNUM|VARIANT|GEOMETRY|BIT|TIME WITH TIME ZONE|TIME_NS)\b"
)
_MOST_CANDIDATES = 5
# Days since 1970 that Python's dates begin with, and no longer reach.
_FIRST_DAY, _AFTER_LAST_DAY = -719_162, 2_932_897
# Nanoseconds in 64 bits never come so far.
_PER_SECOND = {"ms": 10**3, "us": 10**6}
# What holds more within each other costs polars gigabytes.
_DEEPEST = 60
# DuckDB repeats a word that it does not know, however long.
_LONGEST = 400

_EXPLAIN = b"EXPLAIN"


def run_query(
    database: Path,
    sql: str,
    parameters: Mapping[str, str],
    *,
    unsafe: bool = False,
    variables: Mapping[str, object] | None = None,
) -> pl.DataFrame:
    """Answer one SQL statement, without the possibility of changing anything.

    Args:
        database: The warehouse's file.
        sql: One statement; ``$name`` stands for a parameter.
        parameters: Values as typed, see :func:`parse_value`.
        unsafe: For SQL that is trusted: files may be read and written, databases attached,
            extensions installed and settings changed, and other statements may come before the one
            that is answered. The warehouse itself stays attached for reading only.
        variables: Variables of the connection, which views look at: ``show_hidden``, ``only_runs``.

    Raises:
        UsageError: A parameter is missing or unknown, or there is not exactly one statement.
        WarehouseError: The statement does more than ask, or DuckDB refuses it; DuckDB's own
            message has the position.
    """
    _check_text(sql, *parameters, *parameters.values())
    connection = attach_readonly(database) if unsafe else open_readonly(database)
    try:
        for name, value in (variables or {}).items():
            connection.execute(f"SET VARIABLE {identifier(name)} = ?", [value])
        before, statement = (
            _trusted_statements(connection, sql)
            if unsafe
            else ((), _single_question(connection, sql))
        )
        _check_parameters(statement.named_parameters, parameters)
        values = {name: parse_value(text) for name, text in parameters.items()}
        for earlier in before:
            connection.execute(earlier)
        return _fetch(connection, statement.query if before else sql, values)
    except duckdb.Error as error:
        raise WarehouseError(_message(connection, error), subject=sql) from error
    except UnicodeDecodeError as error:
        # A message that repeats a part of a text may begin or end within a character.
        raise WarehouseError(
            "DuckDB refuses the statement, and its message is not text; expected ASCII where a "
            "format stands: change the statement or its parameters.",
            subject=sql,
        ) from error
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


def _check_text(*texts: str) -> None:
    """Refuse bytes of the command line that are not UTF-8; Python keeps them as lone surrogates."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{text[:80]!r} is not text; expected UTF-8: type it anew.", subject=text
            ) from None


def _trusted_statements(
    connection: duckdb.DuckDBPyConnection, sql: str
) -> tuple[Sequence[duckdb.Statement], duckdb.Statement]:
    """The last statement, and those before it."""
    statements = connection.extract_statements(sql)
    if not statements:
        return (), _single_statement(connection, sql)
    for statement in statements:
        if _kind(statement) is duckdb.StatementType.DETACH:
            # A warehouse that was detached could be attached again for writing.
            raise WarehouseError(
                "DETACH was given, which could take the warehouse out of its read-only mode; leave "
                "it out: every database is detached when the query ends.",
                subject=sql,
            )
    return statements[:-1], statements[-1]


def _single_question(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The one statement, if it does no more than ask.

    What DuckDB itself locks (see :func:`~emcache_warehouse.database.open_readonly`) is locked
    however a question is put; this refuses what would change the connection without use.
    """
    statement = _single_statement(connection, sql)
    if not _asks(connection, statement):
        kind = _kind(statement)
        raise WarehouseError(
            f"a statement of the kind {kind.name if kind else 'unknown'} was given, and a query is "
            f"in read-only mode: expected SELECT, WITH, FROM, SHOW, DESCRIBE, PIVOT, or EXPLAIN of "
            f"one of these; for SQL that you trust, `emcache query --unsafe` reads and writes "
            f"files, attaches databases and installs extensions.",
            subject=sql,
        )
    return statement


def _asks(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement) -> bool:
    """Whether a statement is a query, or EXPLAIN of one; EXPLAIN ANALYZE does what it explains."""
    # DuckDB counts the bytes of its own text, in which every kind of space is a plain one.
    text = statement.query.encode()
    tokens = [
        start
        for start, kind in duckdb.tokenize(statement.query)
        if kind is not duckdb.token_type.comment
    ]
    while text[tokens[-1] : tokens[-1] + 1] == b";":
        text = text[: tokens.pop()]
    if text[tokens[0] :][: len(_EXPLAIN)].upper() != _EXPLAIN:
        return _is_query(connection, text.decode())
    # What is explained is the first remainder that is a statement; the options before it are none.
    for start in tokens[1:]:
        explained = text[start:].decode()
        if _parsed(connection, explained):
            return _is_query(connection, explained)
    return False


def _is_query(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    kinds = [_kind(statement) for statement in _parsed(connection, sql)]
    if kinds == [duckdb.StatementType.MULTI]:
        # PIVOT makes several statements of all that it is part of, COPY as well. Only a query can
        # be asked from.
        return len(_parsed(connection, f"FROM (\n{sql}\n)")) == 1
    return kinds == [duckdb.StatementType.SELECT]


def _parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> list[duckdb.Statement]:
    try:
        return connection.extract_statements(sql)
    except duckdb.Error:
        return []


def _kind(statement: duckdb.Statement) -> duckdb.StatementType | None:
    try:
        return statement.type
    except ValueError:
        # DuckDB has kinds of statements that its bindings have no name for.
        return None


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
        frame = _plain_integers(pl.DataFrame(ArrowStream(relation.__arrow_c_stream__())))
        _check_moments(frame)
        return frame
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


def _check_moments(frame: pl.DataFrame) -> None:
    """Refuse dates that Python has no value for; polars would fail where a row is asked for."""
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Date):
            a_day = 1
        elif isinstance(kind, pl.Datetime) and kind.time_unit in _PER_SECOND:
            a_day = 86_400 * _PER_SECOND[kind.time_unit]
        else:
            continue
        physical = frame[name].to_physical().drop_nulls()
        if ((physical < _FIRST_DAY * a_day) | (physical >= _AFTER_LAST_DAY * a_day)).any():
            raise WarehouseError(
                f"column {name} holds a date before the year 1 or after 9999; expected one between "
                f"these: CAST it to VARCHAR.",
                subject=name,
            )


def _as_polars_types(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    names = list(zip(relation.columns, map(str, relation.types), strict=True))
    for name, kind in names:
        if _depth(kind) > _DEEPEST:
            raise WarehouseError(
                f"column {name} holds values nested more than {_DEEPEST} deep; take them apart "
                f"with unnest, or CAST it to JSON.",
                subject=name,
            )
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


def _depth(kind: str) -> int:
    """How deep a type is nested: ``STRUCT(a INTEGER[][])`` is 3."""
    lists = max(len(run) // 2 for run in re.findall(r"(?:\[\d*\])+|$", kind))
    opened = accumulate((letter == "(") - (letter == ")") for letter in kind)
    return lists + max(opened, default=0)


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
    lines = [line[:_LONGEST] for line in str(error).rstrip().splitlines() if line.strip()]
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
