"""Hostile SQL, and values of parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import (
    PARAMETERS,
    attempt,
    cases,
)
from hypothesis import example, given
from hypothesis import strategies as st

from emcache.storage.workspace import Workspace
from emcache_warehouse.named import list_queries
from emcache_warehouse.query import run_named_query, run_query
from emcache_warehouse.sync import sync

SQL_VALUES = st.one_of(
    PARAMETERS,
    st.sampled_from(
        ["nan", "inf", "-inf", "1e308", "-0", '"', '""', '"' * 3, "NULL", "true", "🦆"]
    ),
    st.sampled_from(["9" * 19, "9" * 39, "9" * 400, "-" + "9" * 5000, "1e999999", "." * 50]),
    st.sampled_from(["x' OR 1=1 --", "'; ATTACH 'x' AS y; --", "$1", "read_csv('/etc/passwd')"]),
)


ASKED = [
    "SELECT $a AS a",
    "SELECT $a::INT AS a",
    "SELECT $a::TIMESTAMP AS a",
    "SELECT repeat('x', $a) AS a",
    "FROM runs WHERE seed = $a",
    "FROM runs WHERE train_on = $a LIMIT 3",
    "FROM runs LIMIT $a",
    "SELECT [$a, $a] AS a, {'x': $a} AS b, MAP {$a: 1} AS c",
    "SELECT $a || $a AS a",
    "SELECT list_value($a) AS a",
    "SELECT regexp_matches('aaaaaaaaaaaaaaaaaaaaaaaa!', $a) AS a",
    "SELECT $a ORDER BY $a",
    "SELECT CAST($a AS UUID) AS a, CAST($a AS BLOB) AS b",
    "SELECT CAST($a AS JSON) AS a",
    "SELECT strptime('2020', $a) AS a",
    "SELECT format($a, 1, 2) AS a, printf($a, 1) AS b",
]


@pytest.fixture(scope="module")
def database(runs: Workspace) -> Path:
    sync(runs.runs, runs.warehouse)
    return runs.warehouse


@cases(35, 300)
@given(sql=st.sampled_from(ASKED), value=SQL_VALUES)
@example(sql="SELECT format($a, 1, 2) AS a, printf($a, 1) AS b", value="%\x80")
@example(sql="SELECT strptime('2020', $a) AS a", value="%\x80")
def test_sql_parameters(database: Path, sql: str, value: str) -> None:
    attempt("sql", lambda: run_query(database, sql, {"a": value}))


@cases(15, 80)
@given(data=st.data(), value=SQL_VALUES)
def test_parameters_of_named_queries(database: Path, data: st.DataObject, value: str) -> None:
    query = data.draw(st.sampled_from([q for q in list_queries() if q.parameters]))
    given_ = {data.draw(st.sampled_from(query.parameters)).name: value}
    attempt("sql", lambda: run_named_query(database, query.name, given_))


STATEMENTS = [
    "SELECT \ud800",
    "SELECT '\0' AS a",
    "\0",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT " + "1+" * 5000 + "1 AS a",
    "SELECT " + "[" * 500 + "1" + "]" * 500 + " AS a",
    "SELECT MAP {'a': 1} AS a",
    "SELECT uuid() AS a",
    "SELECT 'a'::BLOB AS a",
    "SELECT TIMESTAMP_NS '2020-01-01' AS a, TIMESTAMPTZ '2020-01-01' AS b, TIME '1:1' AS c",
    "SELECT 1::UHUGEINT AS a, 1::DECIMAL(38, 38) AS b",
    "SELECT DATE 'infinity' AS a, TIMESTAMP '-infinity' AS b, DATE '5881580-07-10' AS c",
    "SELECT '101'::BIT AS a, [1, 2]::INT[2] AS b, union_value(x := 1) AS c",
    "SELECT NULL AS a, [NULL] AS b, {} AS c",
    "SELECT [] AS a",
    "SELECT MAP {} AS a",
    "SELECT {'a': {'b': MAP {1: [INTERVAL 1 DAY]}}} AS a",
    'SELECT 1 AS ""',
    'SELECT 1 AS "a""b"',
    'SELECT 1 AS "a\nb", 2 AS "\U0001f986"',
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "DESCRIBE runs",
    "SUMMARIZE runs",
    "PRAGMA version",
    "CALL duckdb_tables()",
    "SHOW ALL TABLES",
    "BEGIN",
    "PREPARE x AS SELECT 1",
    "CREATE TEMP TABLE x AS SELECT 1",
    "SET VARIABLE x = 1",
    "FROM duckdb_settings()",
    "SELECT error('x')",
    "PIVOT runs ON seed USING count(*)",
    "VALUES (1), ('x')",
    "SELECT * FROM (VALUES (1, 2)) t(a, a)",
    "SELECT 1;",
    ";;;",
    "/* " + "x" * 10_000,
    "SELECT '" + "x" * 100_000 + "' AS a",
    'SELECT "' + "x" * 100_000 + '"',
]


@cases(40, 150)
@given(sql=st.one_of(st.sampled_from(STATEMENTS), st.text(max_size=60)))
def test_statements(database: Path, sql: str) -> None:
    attempt("sql", lambda: run_query(database, sql, {}).rows())
