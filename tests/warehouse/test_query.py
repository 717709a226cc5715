"""One statement in, a frame out, and nothing changed."""

from __future__ import annotations

import subprocess
import sys

import duckdb
import numpy as np
import polars as pl
import pytest

from emcache.errors import UsageError, WarehouseError
from emcache_warehouse.database import attach_readonly, open_readonly
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


def test_a_file_without_its_end_says_how_to_mend_it(filled):
    """Likewise: what opening it needs stands at its beginning."""
    data = filled.database.read_bytes()
    filled.database.write_bytes(data[:-600_000])
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


@pytest.fixture
def outside(tmp_path_factory):
    """A folder with files that hold one column ``a`` of one row, and a database with that table."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.csv").write_text("a\n1\n")
    (folder / "secret.json").write_text('[{"a": 1}]')
    pl.DataFrame({"a": [1]}).write_parquet(folder / "secret.parquet")
    with duckdb.connect(str(folder / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    return folder


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE x (a INT)",
        "INSERT INTO epochs (run_id, epoch) VALUES ('x', 1)",
        "DELETE FROM runs",
        "DROP VIEW leaderboard",
        "UPDATE runs SET seed = 1",
        "TRUNCATE runs",
        "ALTER TABLE runs ADD COLUMN x INT",
        "COMMENT ON TABLE runs IS 'x'",
        "MERGE INTO runs USING (SELECT 1 AS s) AS x ON runs.seed = x.s WHEN MATCHED THEN DELETE",
        "CREATE TEMP TABLE x (a INT)",
        "CREATE TABLE memory.main.x AS FROM runs",
        "CREATE TEMP MACRO f(x) AS x",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "CHECKPOINT",
        "VACUUM",
        "EXPLAIN CREATE TABLE memory.main.x AS FROM runs",
        "EXPLAIN ANALYZE DELETE FROM runs",
        "EXPLAIN ANALYZE WITH x AS (SELECT 1) INSERT INTO memory.main.y FROM x",
        "EXPLAIN /* of */ (ANALYZE, FORMAT JSON) -- é\n VACUUM;",
        "EXPLAIN\u00a0ANALYZE\u00a0CREATE TEMP TABLE x AS SELECT 1",
        "CREATE TEMP TABLE x AS PIVOT runs ON seed USING count(*)",
        "EXPLAIN ANALYZE CREATE TEMP TABLE x AS PIVOT runs ON seed USING count(*)",
    ],
)
def test_writing_is_refused(filled, sql):
    before = filled.database.read_bytes()
    with pytest.raises(WarehouseError, match="read-only mode"):
        run_query(filled.database, sql, {})
    assert filled.database.read_bytes() == before


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("FROM read_csv('{folder}/secret.csv')", "disabled by configuration"),
        ("FROM read_text('{folder}/secret.csv')", "disabled by configuration"),
        ("FROM read_blob('{folder}/secret.csv')", "disabled by configuration"),
        ("FROM read_json('{folder}/secret.json')", "disabled by configuration"),
        ("FROM read_parquet('{folder}/secret.parquet')", "disabled by configuration"),
        ("FROM parquet_metadata('{folder}/secret.parquet')", "disabled by configuration"),
        ("FROM read_duckdb('{folder}/other.duckdb', table_name='t')", "disabled by configuration"),
        ("FROM '{folder}/secret.csv'", "disabled by configuration"),
        ("FROM '{folder}/secret.parquet'", "disabled by configuration"),
        ("FROM glob('{folder}/*')", "disabled by configuration"),
        ("FROM read_csv('https://example.org/x.csv')", "disabled by configuration"),
        ("EXPLAIN ANALYZE COPY runs TO '{folder}/out.csv'", "read-only mode"),
        ("SELECT getenv('HOME')", "getenv does not exist"),
        ("COPY runs TO '{folder}/out.csv'", "read-only mode"),
        ("COPY epochs FROM '{folder}/secret.csv'", "read-only mode"),
        ("ATTACH '{folder}/other.duckdb'", "read-only mode"),
        ("ATTACH ':memory:' AS other", "read-only mode"),
        ("DETACH warehouse", "read-only mode"),
        ("EXPORT DATABASE '{folder}/export'", "read-only mode"),
        ("IMPORT DATABASE '{folder}'", "read-only mode"),
        ("INSTALL httpfs", "read-only mode"),
        ("LOAD httpfs", "read-only mode"),
        ("LOAD json", "read-only mode"),
        ("UPDATE EXTENSIONS", "read-only mode"),
        ("CREATE SECRET s (TYPE s3)", "read-only mode"),
        ("SET enable_external_access = true", "read-only mode"),
        ("SET threads = 1", "read-only mode"),
        ("SET schema = 'memory'", "read-only mode"),
        ("SET VARIABLE x = 1", "read-only mode"),
        ("RESET threads", "read-only mode"),
        ("USE memory", "read-only mode"),
        ("PRAGMA enable_profiling", "read-only mode"),
        ("PRAGMA enable_verification", "read-only mode"),
        ("PRAGMA database_list", "read-only mode"),
        ("PRAGMA table_info('runs')", "read-only mode"),
        ("CALL enable_logging()", "read-only mode"),
    ],
)
def test_files_extensions_and_settings_are_out_of_reach(filled, outside, sql, why):
    before = files_below(outside)
    with pytest.raises(WarehouseError, match=why):
        run_query(filled.database, sql.format(folder=outside), {})
    assert files_below(outside) == before


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO epochs (run_id, epoch) VALUES ('x', 1)",
        "COPY runs TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/export'",
        "ATTACH '{folder}/other.duckdb'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET python_enable_replacements = true",
        "SET threads = 1",
        "PRAGMA enable_profiling",
    ],
)
def test_the_connection_itself_is_locked(filled, outside, sql):
    before = files_below(outside)
    locked = "disabled by configuration|has been locked|read-only mode"
    connection = open_readonly(filled.database)
    with connection, pytest.raises(duckdb.Error, match=locked):
        connection.execute(sql.format(folder=outside))
    assert files_below(outside) == before


WRITES = [
    "EXPLAIN ANALYZE COPY (SELECT 42) TO '{file}' {how}",
    "EXPLAIN (ANALYZE, FORMAT JSON) COPY (SELECT 42) TO '{file}' {how}",
    "COPY (PIVOT (FROM runs LIMIT 3) ON seed USING count(*)) TO '{file}' {how}",
    "EXPLAIN ANALYZE COPY (PIVOT runs ON seed USING count(*)) TO '{file}' {how}",
    "WITH x AS (COPY (SELECT 42) TO '{file}' {how}) SELECT 1",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 42) TO '{file}' {how}) SELECT 1",
]


@pytest.mark.parametrize("sql", WRITES)
@pytest.mark.parametrize("ending", ["", ".wal"])
@pytest.mark.parametrize("how", ["(FORMAT csv, USE_TMP_FILE false)", "(FORMAT parquet)"])
def test_the_file_of_the_warehouse_itself_cannot_be_written(filled, sql, ending, how):
    """DuckDB allows the files of what is attached, whatever else is out of reach."""
    before = files_below(filled.root)
    sql = sql.format(file=f"{filled.database}{ending}", how=how)
    with pytest.raises(WarehouseError, match=r"read-only mode|disabled by configuration"):
        run_query(filled.database, sql, {})
    with open_readonly(filled.database) as connection, pytest.raises(duckdb.Error):
        connection.execute(sql)
    assert files_below(filled.root) == before


@pytest.mark.parametrize("opened", [open_readonly, attach_readonly])
def test_python_variables_are_out_of_reach(filled, opened):
    secret_array = np.arange(3)
    secret_frame = pl.DataFrame({"a": [1]})
    with opened(filled.database) as connection:
        for name in ("secret_array", "secret_frame"):
            with pytest.raises(duckdb.Error, match="not exist"):
                connection.execute(f"SELECT * FROM {name}")
    assert secret_array.size == 3
    assert secret_frame.height == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS a",
        "VALUES (1)",
        "SHOW TABLES",
        "DESCRIBE runs",
        "SUMMARIZE runs",
        "EXPLAIN FROM runs",
        "WITH x AS (SELECT 1 AS a) FROM x",
        "PIVOT runs ON seed USING count(*)",
        "EXPLAIN PIVOT runs ON seed USING count(*)",
        "PIVOT runs ON seed USING count(*); -- of each seed",
        "EXPLAIN ANALYZE FROM runs; ;",
        "EXPLAIN (ANALYZE, FORMAT JSON) (SELECT 'é;') UNION SELECT 'b'",
        "/* é */ EXPLAIN\u00a0SELECT 1",
    ],
)
def test_whatever_asks_is_answered(filled, sql):
    assert not run_query(filled.database, sql, {}).is_empty()


# SQL that is trusted


def unsafe(made_up, sql, **parameters):
    return run_query(made_up.database, sql, parameters, unsafe=True)


def test_trusted_sql_reads_files(filled, outside):
    for name in ("secret.csv", "secret.json", "secret.parquet"):
        assert unsafe(filled, f"FROM '{outside / name}'").rows() == [(1,)]
    assert "secret.csv" in str(unsafe(filled, f"FROM glob('{outside}/*.csv')").rows())


def test_trusted_sql_writes_files(filled, tmp_path):
    unsafe(filled, f"COPY (SELECT seed FROM runs) TO '{tmp_path}/seeds.parquet'")
    assert pl.read_parquet(tmp_path / "seeds.parquet").height == 5
    unsafe(filled, f"EXPORT DATABASE '{tmp_path}/export' (FORMAT parquet)")
    assert (tmp_path / "export" / "schema.sql").is_file()


def test_trusted_sql_attaches_databases_and_changes_settings(filled, outside):
    joined = unsafe(
        filled,
        f"SET threads = 1; ATTACH '{outside}/other.duckdb' AS o; "
        f"SELECT count(*) AS n, max(t.a) AS a FROM runs, o.t WHERE seed < $below",
        below="2",
    )
    assert joined.rows() == [(4, 1)]
    unsafe(filled, f"ATTACH '{outside}/other.duckdb' AS o; INSERT INTO o.t VALUES (2)")
    with duckdb.connect(str(outside / "other.duckdb")) as connection:
        assert connection.execute("FROM t").fetchall() == [(1,), (2,)]


def test_trusted_sql_installs_extensions(filled, tmp_path):
    """From a folder in place of the network; what lies there is none, so DuckDB looks and says."""
    place = tmp_path / "repository"
    sql = (
        f"SET extension_directory = '{tmp_path}/extensions'; "
        f"SET custom_extension_repository = '{place}'; INSTALL nothing"
    )
    with pytest.raises(WarehouseError, match=f"IO Error(?s:.*){place}"):
        unsafe(filled, sql)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("INSERT INTO epochs (run_id, epoch) VALUES ('x', 1)", "read-only mode"),
        ("DELETE FROM runs", "read-only mode"),
        ("DROP VIEW leaderboard", "read-only mode"),
        ("CREATE TABLE x (a INT)", "read-only mode"),
        ("ATTACH '{database}' AS again", "already attached"),
        ("USE memory; DETACH warehouse; ATTACH '{database}' AS again", "leave it out"),
        (
            "USE memory; ATTACH OR REPLACE '{database}' AS warehouse; DELETE FROM warehouse.runs",
            "read-only mode",
        ),
    ],
)
def test_trusted_sql_cannot_write_the_warehouse(filled, sql, why):
    before = filled.database.read_bytes()
    with pytest.raises(WarehouseError, match=why):
        unsafe(filled, sql.format(database=filled.database))
    assert filled.database.read_bytes() == before


@pytest.mark.parametrize("sql", ["", " -- nothing"])
def test_trusted_sql_is_a_statement_too(empty, sql):
    with pytest.raises(UsageError, match="where one is expected"):
        unsafe(empty, sql)


def test_parameters_belong_to_the_last_trusted_statement(empty):
    with pytest.raises(UsageError, match="no value for the parameter x"):
        unsafe(empty, "SET threads = 1; SELECT $x")
    with pytest.raises(UsageError, match="it takes none at all"):
        unsafe(empty, "SELECT 1", x="1")


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
    assert {"runs", "leaderboard", "paper_results", "made_by"} <= set(dictionary["name"])
