"""One statement in, a frame out, and nothing changed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from emcache.errors import UsageError, WarehouseError
from emcache_warehouse.database import open_readonly
from emcache_warehouse.query import (
    list_queries,
    named_query,
    parse_value,
    run_named_query,
    run_query,
)
from emcache_warehouse.schema import describe_schema


@pytest.fixture(scope="module")
def empty(filled_once, tmp_path_factory):
    """A workspace without records, for reading only."""
    made_up = type(filled_once)(tmp_path_factory.mktemp("empty"))
    made_up.sync()
    return made_up


# Named queries


@pytest.mark.parametrize("query", list_queries(), ids=lambda query: query.name)
@pytest.mark.parametrize("workspace_state", ["empty", "filled"])
def test_every_named_query_runs_and_its_header_is_true(query, workspace_state, request):
    made_up = request.getfixturevalue(workspace_state)

    rows = run_named_query(made_up.database, query.name)

    assert tuple(rows.columns) == query.columns
    of_the_paper = query.name == "paper-comparison" or query.name.startswith("table-")
    # No audit is among the made-up records; its query is tested with its chart.
    has_rows = of_the_paper or (workspace_state == "filled" and query.name != "audit")
    assert rows.is_empty() != has_rows
    assert query.description.endswith(".")
    for parameter in query.parameters:
        assert f"${parameter.name}" in query.sql


def test_an_unknown_query_is_answered_with_the_nearest_and_all():
    with pytest.raises(UsageError) as caught:
        named_query("leaderbord")
    assert "did you mean leaderboard?" in str(caught.value)
    for query in list_queries():
        assert query.name in str(caught.value)


def test_looking_up_named_queries_imports_no_database():
    script = (
        "import sys, emcache_warehouse.named as n; n.list_queries(); "
        "print({'duckdb', 'altair', 'polars', 'vl_convert', 'torch'} & set(sys.modules))"
    )
    assert output_of(script).stdout == "set()\n"


# Parameters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-12", -12),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("TRUE", True),
        ("false", False),
        ("null", None),
        ("vnc", "vnc"),
        ("lucchi++ + vnc", "lucchi++ + vnc"),
        ("007", "007"),
        ('"3"', "3"),
        ('"null"', "null"),
        ("nan", "nan"),
        ("", ""),
        ("1_000", "1_000"),
    ],
)
def test_parameters_mean_what_they_look_like(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_parameters_are_values_never_sql(empty):
    text = "x' OR 1 = 1 --"
    rows = run_query(empty.database, "SELECT $name AS name", {"name": text})
    assert rows.rows() == [(text,)]


def test_a_missing_parameter_is_named(empty):
    with pytest.raises(UsageError, match=r"parameter seed; give it with -p seed=VALUE"):
        run_query(empty.database, "SELECT $seed, $split", {"split": "test"})


def test_an_unknown_parameter_is_named_with_those_there_are(empty):
    with pytest.raises(UsageError, match=r"no parameter sede; the statement takes seed"):
        run_query(empty.database, "SELECT $seed", {"sede": "1", "seed": "1"})
    with pytest.raises(UsageError, match="it takes none"):
        run_named_query(empty.database, "leaderboard", {"limit": "3"})


# Wrong SQL


@pytest.mark.parametrize(
    ("sql", "line", "caret"),
    [
        ("SELECT * FRM runs", "LINE 1: SELECT * FRM runs", "^"),
        ("SELECT seed,\n  colour\nFROM runs", "LINE 2:   colour", "^^^^^^"),
        ("SELECT * FROM leaderbord", "LINE 1: SELECT * FROM leaderbord", "^^^^^^^^^^"),
        ("SELECT colour(seed) FROM runs", "LINE 1: SELECT colour(seed) FROM runs", "^"),
        ("SELECT CAST('a' AS INT)", "LINE 1: SELECT CAST('a' AS INT)", "^"),
    ],
)
def test_wrong_sql_gives_duckdbs_message_with_the_position(filled, sql, line, caret):
    with pytest.raises(WarehouseError) as caught:
        run_query(filled.database, sql, {})
    *_, shown, marker = str(caught.value).splitlines()
    assert shown == line
    assert marker.strip().startswith(caret)


def test_a_value_that_does_not_convert_gives_the_position_too(filled):
    with pytest.raises(WarehouseError, match=r"Conversion Error(?s:.*)LINE 1"):
        run_query(filled.database, "SELECT CAST(backbone AS INT) FROM runs", {})


def test_an_unknown_table_is_answered_with_those_there_are(filled):
    with pytest.raises(WarehouseError, match=r"views are .*leaderboard, .*run_metrics, ") as caught:
        run_query(filled.database, "FROM cost", {})
    assert "pg_" not in str(caught.value)


def test_a_damaged_block_says_how_to_mend_it(filled):
    """The file opens; only the rows meet the damage."""
    data = bytearray(filled.database.read_bytes())
    for start in range(3 * 4096, len(data), 4096):
        data[start] ^= 0xFF
    filled.database.write_bytes(data)
    with pytest.raises(WarehouseError, match="emcache warehouse rebuild"):
        run_query(filled.database, "FROM slice_metrics", {})


def test_a_long_list_of_overloads_is_cut_short(filled):
    with pytest.raises(WarehouseError) as caught:
        run_query(filled.database, "SELECT backbone + 1 FROM runs", {})
    assert "LINE 1" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 12


@pytest.mark.parametrize("sql", ["", " -- nothing", "SELECT 1; SELECT 2"])
def test_exactly_one_statement_is_expected(empty, sql):
    with pytest.raises(UsageError, match="where one is expected"):
        run_query(empty.database, sql, {})


def test_a_repeated_column_is_named(empty):
    with pytest.raises(WarehouseError, match="more than one column named a"):
        run_query(empty.database, "SELECT 1 AS a, 2 AS a", {})


def test_a_warehouse_that_is_not_there_says_how_to_make_it(made_up):
    with pytest.raises(WarehouseError, match="emcache warehouse sync"):
        run_query(made_up.database, "SELECT 1", {})


# Nothing changes, nothing outside is read


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE x (a INT)",
        "INSERT INTO epochs (run_id, epoch) VALUES ('x', 1)",
        "DELETE FROM runs",
        "DROP VIEW leaderboard",
        "UPDATE runs SET seed = 1",
    ],
)
def test_writing_is_refused(filled, sql):
    before = filled.database.read_bytes()
    with pytest.raises(WarehouseError, match="read-only mode"):
        run_query(filled.database, sql, {})
    assert filled.database.read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('{file}')",
        "FROM read_text('{file}')",
        "FROM '{file}'",
        "FROM glob('{folder}/*')",
        "COPY runs TO '{folder}/out.csv'",
        "ATTACH '{folder}/other.duckdb'",
        "EXPORT DATABASE '{folder}/export'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 1",
        "FROM read_csv('https://example.org/x.csv')",
    ],
)
def test_files_extensions_and_settings_are_out_of_reach(filled, tmp_path, sql):
    file = tmp_path / "secret.csv"
    file.write_text("a\n1\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WarehouseError):
        run_query(filled.database, sql.format(file=file, folder=tmp_path), {})
    assert sorted(tmp_path.rglob("*")) == before


def test_python_variables_are_out_of_reach(filled):
    secret_array = np.arange(3)
    with open_readonly(filled.database) as connection, pytest.raises(Exception, match="not exist"):
        connection.execute("SELECT * FROM secret_array")
    assert secret_array.size == 3


# What comes back


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("sum(x)", 3),
        ("INTERVAL 1 DAY", "1 day"),
        ("[INTERVAL 1 DAY]", "[1 day]"),
        ("1::BIGNUM", "1"),
        ("[1, 2]", [1, 2]),
        ("{'a': 1}", {"a": 1}),
        ("'x'::ENUM ('x', 'y')", "x"),
        ("NULL", None),
        ("9223372036854775807::HUGEINT * 0 + 5", 5),
    ],
)
def test_values_of_every_type_arrive(empty, expression, value):
    sql = (
        f"SELECT any_value(y) AS y FROM (SELECT {expression} AS y FROM (VALUES (1), (2)) AS t (x))"
    )
    if expression.startswith("sum"):
        sql = "SELECT sum(x) AS y FROM (VALUES (1), (2)) AS t (x)"
    assert run_query(empty.database, sql, {})["y"].to_list() == [value]


def test_integers_too_large_for_64_bits_stay_exact(empty):
    rows = run_query(empty.database, "SELECT 12345678901234567890123456789::HUGEINT AS x", {})
    assert int(rows["x"][0]) == 12345678901234567890123456789


def output_of(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("sql", ["FROM leaderboard", "SELECT nope FROM runs"])
def test_a_process_that_queried_ends_in_silence(filled, sql):
    """DuckDB's bindings complain at exit about whatever Python still holds of them."""
    script = """
import sys
from pathlib import Path
from emcache.errors import EmcacheError
from emcache_warehouse.formats import render
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import sync
database = Path(sys.argv[1])
sync(database.parent / "runs", database)
try:
    print(len(render(run_query(database, sys.argv[2], {}), "json")) > 0)
except EmcacheError as error:
    print(error)
"""
    result = output_of(script, filled.database, sql)

    assert result.stderr == ""
    assert result.stdout != ""


# The dictionary


def test_every_column_of_every_table_and_view_is_explained(empty):
    dictionary = describe_schema(empty.database)

    unexplained = dictionary.filter(pl.col("meaning").is_null() | pl.col("purpose").is_null())
    assert unexplained.rows() == []
    assert set(dictionary["kind"]) == {"table", "view"}
    assert {"runs", "leaderboard", "paper_results", "migrations"} <= set(dictionary["name"])
