"""Keeping the warehouse up to date: nothing lost, nothing written in place."""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import duckdb
import polars as pl
import pytest

import emcache_warehouse.ingest
import emcache_warehouse.sync
from emcache.errors import WarehouseError
from emcache.storage.records import new_record
from emcache_warehouse import schema
from emcache_warehouse.build import fill
from emcache_warehouse.database import open_readonly
from emcache_warehouse.kinds import KINDS
from emcache_warehouse.packaged import PackagedFile, packaged_files
from emcache_warehouse.query import run_query
from emcache_warehouse.reading import read_records
from emcache_warehouse.sync import check, rebuild

TABLES = ("records", "datasets", "slices", "feature_sets", "runs", "epochs", "slice_metrics")


def contents(database):
    """Every table, rows in a fixed order."""
    rows = {}
    with open_readonly(database) as connection:
        for table in (*TABLES, "paper_results", "paper_parameters"):
            found = connection.execute(f"SELECT * FROM {table} ORDER BY ALL")
            names = [column[0] for column in found.description]
            rows[table] = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return rows


def record_ids(database):
    return run_query(database, "SELECT record_id FROM records ORDER BY 1", {})[
        "record_id"
    ].to_list()


def state(database):
    facts = database.stat()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def files_beside(made_up):
    return sorted(path.name for path in made_up.root.iterdir() if path != made_up.runs)


# What is ingested


def test_a_sync_fills_every_table(made_up):
    dataset = made_up.dataset("vnc", n_slices=4)
    extraction = made_up.extract()
    run = made_up.train(seed=3, epochs=made_up.epochs(6))

    report = made_up.sync()

    assert report.ingested == (dataset.id, extraction.id, run.id)
    assert report.problems == ()
    rows = contents(made_up.database)
    assert {table: len(rows[table]) for table in TABLES} == {
        "records": 3,
        "datasets": 1,
        "slices": 4,
        "feature_sets": 1,
        "runs": 1,
        "epochs": 6,
        "slice_metrics": 3,
    }
    assert rows["datasets"][0]["voxel_size_nm"] == [50.0, 4.6, 4.6]
    assert rows["slices"][3]["mask"] is None
    assert rows["feature_sets"][0]["compute_seconds"] == 12.5
    for name in ("seed", "train_on", "feature_sets", "label_sets", "best_val_loss", "head"):
        assert rows["runs"][0][name] == run.config[name]
    assert len(rows["paper_results"]) == 60
    assert len(rows["paper_parameters"]) == 9


@pytest.mark.parametrize("seed", packaged_files("seeds"), ids=lambda file: file.stem)
def test_the_papers_tables_hold_their_files_cell_by_cell(filled, seed):
    header, *rows = csv.reader(io.StringIO(seed.text))

    stored = run_query(filled.database, f"FROM {seed.stem}", {})

    assert stored.columns == header
    as_text = [["" if cell is None else cell for cell in row] for row in stored.rows()]
    as_read = [
        [type(stored_cell)(cell) if cell else "" for stored_cell, cell in zip(*both, strict=True)]
        for both in zip(as_text, rows, strict=True)
    ]
    assert as_text == as_read


def test_parquet_values_arrive_unchanged(made_up):
    epochs = made_up.epochs(9)
    counts = made_up.counts(("vnc",), 4)
    made_up.train(epochs=epochs, counts=counts)
    made_up.sync()

    stored = run_query(made_up.database, "SELECT * EXCLUDE (run_id) FROM epochs ORDER BY epoch", {})
    slices = run_query(
        made_up.database, "SELECT * EXCLUDE (run_id) FROM slice_metrics ORDER BY 3", {}
    )

    assert stored.equals(epochs)
    assert slices.equals(counts)


def test_a_workspace_without_records_gets_an_empty_warehouse(made_up):
    report = made_up.sync()

    assert report.changed
    assert record_ids(made_up.database) == []
    assert run_query(made_up.database, "FROM leaderboard", {}).is_empty()


def test_a_folder_with_wildcards_in_its_name_is_taken_literally(made_up):
    matching = made_up.root / "ab*'c"
    made_up.root = made_up.root / "a[b]*'c"
    record = made_up.train()
    shutil.copytree(made_up.root, matching)
    other = matching / "runs" / record.id / "epochs.parquet"
    made_up.epochs(3).write_parquet(other)

    assert made_up.sync().problems == ()
    assert run_query(made_up.database, "FROM epochs", {}).height == 12


@pytest.mark.parametrize("name", ["{a,b}", '"', "[!a]", "**", "$x #%20", "ü\n"])
def test_a_folder_of_any_name_is_taken_literally(made_up, name):
    made_up.root = made_up.root / name / "workspace"
    record = made_up.train(epochs=made_up.epochs(4))

    assert made_up.sync().ingested == (record.id,)
    assert run_query(made_up.database, "FROM epochs", {}).height == 4


@pytest.mark.parametrize(
    ("name", "letter"), [("why?", "a question mark"), ("back\\slash", "a backslash")]
)
def test_a_folder_that_duckdb_cannot_write_to_is_a_sentence(made_up, name, letter):
    made_up.root = made_up.root / name
    made_up.train()

    with pytest.raises(WarehouseError, match=f"has {letter}, which .* rename the folder"):
        made_up.sync()


def test_folders_named_like_columns_change_no_column(made_up):
    """DuckDB takes ``split=train`` in a path for a column of every file below it."""
    names = [
        f"{column}=731"
        for kind in KINDS.values()
        for table in kind.files.values()
        for column in table.columns
    ]
    made_up.root = made_up.root.joinpath(*dict.fromkeys(names), "workspace")
    epochs = made_up.epochs(4)
    counts = made_up.counts(("vnc",), 4)
    run = made_up.train(epochs=epochs, counts=counts)
    made_up.evaluate(run, "lucchi++")
    made_up.dataset("vnc")
    made_up.extract()
    made_up.gap()
    made_up.bench()

    assert made_up.sync().problems == ()

    stored = run_query(made_up.database, "SELECT * EXCLUDE (run_id) FROM epochs ORDER BY epoch", {})
    slices = run_query(
        made_up.database, "SELECT * EXCLUDE (run_id) FROM slice_metrics ORDER BY 3", {}
    )
    assert stored.equals(epochs)
    assert slices.equals(counts)
    for table in ("evaluation_metrics", "slices", "embeddings", "gaps", "gap_points"):
        rows = run_query(made_up.database, f"SELECT COLUMNS(*)::VARCHAR FROM {table}", {})
        assert "731" not in {cell for row in rows.rows() for cell in row}, table


def test_optional_keys_may_be_absent(made_up):
    made_up.other("dataset", dataset="vnc")
    made_up.other(
        "train-head",
        **dict.fromkeys(KINDS["train-head"].required, "x") | {"seed": 0, "longest_edge": 14},
    )

    assert made_up.sync().problems == ()
    rows = contents(made_up.database)
    assert rows["datasets"][0]["n_slices"] is None
    assert rows["runs"][0]["feature_sets"] is None


def test_unlabelled_datasets_with_empty_columns_stand_beside_labelled_ones(made_up):
    made_up.dataset("vnc")
    record = made_up.dataset("stack2", n_slices=1)

    assert made_up.sync().problems == ()
    rows = [row for row in contents(made_up.database)["slices"] if row["record_id"] == record.id]
    assert [row["mask"] for row in rows] == [None]


def test_the_newest_record_of_a_dataset_counts_whatever_comes_first(made_up):
    old = made_up.dataset("vnc", n_slices=5)
    new = made_up.dataset("vnc", n_slices=3)
    aside = made_up.root / "aside"
    shutil.move(old.folder, aside)
    made_up.sync()
    shutil.move(aside, old.folder)

    assert made_up.sync().ingested == (old.id,)
    rows = contents(made_up.database)
    assert [row["record_id"] for row in rows["datasets"]] == [new.id]
    assert [row["record_id"] for row in rows["slices"]] == [new.id] * 3


@pytest.mark.parametrize("seed", range(2))
def test_an_incremental_warehouse_equals_a_rebuilt_one_in_any_order(made_up, seed):
    for _ in range(2):
        made_up.dataset("vnc", n_slices=random.Random(seed).randint(2, 6))
        made_up.dataset("lucchi++")
        made_up.extract()
        made_up.train()
        made_up.train(("lucchi++", "vnc"))
        made_up.other("benchmark", x=1)
    folders = list(made_up.runs.iterdir())
    random.Random(seed).shuffle(folders)
    away = made_up.root / "away"
    made_up.runs.rename(away)
    made_up.runs.mkdir()
    for start in range(0, len(folders), 5):
        for folder in folders[start : start + 5]:
            (away / folder.name).rename(folder)
        assert made_up.sync().problems == ()
    incremental = contents(made_up.database)

    rebuild(made_up.runs, made_up.database)

    assert contents(made_up.database) == incremental
    assert len(incremental["records"]) == len(folders)


# Nothing new


def test_a_second_sync_touches_nothing(filled):
    before = state(filled.database)
    beside = files_beside(filled)

    report = filled.sync()

    assert (report.ingested, report.changed) == ((), False)
    assert state(filled.database) == before
    assert files_beside(filled) == beside


def test_rows_of_records_that_have_gone_go_too(filled):
    gone = record_ids(filled.database)[-2]
    shutil.rmtree(filled.runs / gone)
    kept = filled.train()

    report = filled.sync()

    assert report.changed
    assert gone in report.notes[0]
    assert "`emcache warehouse export`" in report.notes[0]
    assert gone not in record_ids(filled.database)
    assert kept.id in record_ids(filled.database)
    assert not filled.sync().changed
    assert {finding.verdict for finding in check(filled.runs, filled.database)} == {"pass"}


def test_an_older_description_of_a_dataset_counts_again_when_the_newer_one_goes(filled):
    old = filled.dataset("vnc", n_slices=2)
    new = filled.dataset("vnc", n_slices=3)
    filled.sync()
    shutil.rmtree(new.folder)
    filled.sync()
    rows = run_query(filled.database, "SELECT record_id FROM datasets WHERE dataset = 'vnc'", {})
    assert rows.rows() == [(old.id,)]


# Records that cannot be ingested


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_record_is_reported_and_the_others_are_kept(filled):
    first = filled.train(seed=5)
    damaged = filled.train(seed=6)
    last = filled.train(seed=7)
    flip(damaged.file("slice_metrics.parquet"))

    report = filled.sync()

    assert report.ingested == (first.id, last.id)
    assert [problem.record_id for problem in report.problems] == [damaged.id]
    assert "slice_metrics.parquet" in report.problems[0].message
    before = state(filled.database)
    again = filled.sync()
    assert [problem.record_id for problem in again.problems] == [damaged.id]
    assert not again.changed
    assert state(filled.database) == before


def test_a_missing_required_key_is_named(made_up):
    bad = made_up.train(backbone=None)
    good = made_up.train()

    report = made_up.sync()

    assert report.ingested == (good.id,)
    assert [problem.record_id for problem in report.problems] == [bad.id]
    assert "no backbone" in report.problems[0].message


BAD_EPOCHS = {
    "a column is missing": lambda epochs: epochs.drop("train_loss"),
    "a column of another type": lambda epochs: epochs.with_columns(train_loss=pl.lit("low")),
    "an epoch twice": lambda epochs: pl.concat([epochs, epochs.head(1)]),
    "a number is missing": lambda epochs: epochs.with_columns(epoch=pl.lit(None, pl.Int64)),
}


@pytest.mark.parametrize("spoil", BAD_EPOCHS.values(), ids=BAD_EPOCHS)
def test_a_table_of_another_shape_keeps_only_its_own_record_out(made_up, spoil):
    first = [made_up.train(seed=seed) for seed in range(3)]
    bad = made_up.train(seed=3, epochs=made_up.epochs(4), spoil=spoil)
    last = [made_up.train(seed=seed) for seed in range(4, 7)]

    report = made_up.sync()

    assert report.ingested == tuple(record.id for record in (*first, *last))
    assert [problem.record_id for problem in report.problems] == [bad.id]
    assert bad.id not in record_ids(made_up.database)
    assert not made_up.sync().changed


@pytest.fixture(scope="module")
def odd_files(filled_once, tmp_path_factory):
    """Damaged tables by the error of DuckDB; such as it does not put down to the file."""
    path = tmp_path_factory.mktemp("odd") / "slice_metrics.parquet"
    filled_once.counts(("vnc",), 50).write_parquet(path)
    sound = path.read_bytes()
    random_ = random.Random(1)
    put_down_to_the_file = (
        duckdb.DataError,
        duckdb.IntegrityError,
        duckdb.NotSupportedError,
        duckdb.ProgrammingError,
    )
    odd = {}
    for _ in range(300):
        data = bytearray(sound)
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        path.write_bytes(data)
        with duckdb.connect() as connection:
            try:
                connection.execute(
                    "CREATE TABLE t AS FROM read_parquet($path)", {"path": str(path)}
                )
            except (duckdb.Error, UnicodeDecodeError) as error:
                if not isinstance(error, put_down_to_the_file):
                    odd.setdefault(type(error), bytes(data))
        if len(odd) == 3:
            break
    assert odd
    return odd


def with_table(made_up, content):
    """A finished record whose checksums are right, whatever its table holds."""
    with new_record(made_up.runs, "train-head") as draft:
        draft.config = dict.fromkeys(KINDS["train-head"].required, "x") | {"seed": 0}
        draft.path("slice_metrics.parquet").write_bytes(content)
    return draft.id


def test_an_odd_parquet_file_keeps_only_its_own_record_out(filled, odd_files):
    known = record_ids(filled.database)
    first = filled.train(seed=5).id
    bad = [with_table(filled, content) for content in odd_files.values()]
    last = filled.train(seed=6).id

    for report in (filled.sync(), rebuild(filled.runs, filled.database), filled.sync()):
        assert sorted(problem.record_id for problem in report.problems) == sorted(bad)
        for problem in report.problems:
            assert problem.message.startswith(
                f"record {problem.record_id} was left out of the warehouse: slice_metrics.parquet "
                f"cannot be read as Parquet ("
            )
            assert problem.message.endswith("remove it and run the command again.")
        assert record_ids(filled.database) == sorted([*known, first, last])
    assert not report.changed
    findings = [f for f in check(filled.runs, filled.database) if f.verdict != "pass"]
    assert [(f.name, f.verdict) for f in findings] == [("records", "fail")] * len(bad)


def test_what_was_kept_before_an_odd_file_is_not_taken_in_twice(made_up, odd_files, monkeypatch):
    monkeypatch.setattr(emcache_warehouse.ingest, "_BATCH", 2)
    good = [made_up.train(seed=seed).id for seed in range(3)]
    bad = [with_table(made_up, content) for content in odd_files.values()]
    good.append(made_up.train(seed=3).id)

    report = made_up.sync()

    assert report.ingested == tuple(good)
    assert {problem.record_id for problem in report.problems} == set(bad)
    assert record_ids(made_up.database) == good


@pytest.mark.parametrize("moment", ["before it is read", "before it is taken in"])
def test_a_record_that_is_removed_meanwhile_keeps_only_itself_out(filled, monkeypatch, moment):
    gone = filled.train(seed=5)
    kept = filled.train(seed=6)
    late = "taken in" in moment
    name = "emcache_warehouse.sync." + ("fill" if late else "read_records")
    original = fill if late else read_records

    def remove_and_go_on(*arguments):
        shutil.rmtree(gone.folder)
        return original(*arguments)

    monkeypatch.setattr(name, remove_and_go_on)

    report = filled.sync()

    assert report.ingested == (kept.id,)
    assert [problem.record_id for problem in report.problems] == [gone.id]
    assert "its folder was removed while" in report.problems[0].message


def test_an_unknown_kind_is_a_row_of_records_and_nothing_more(made_up):
    record = made_up.other("telescope", aperture=2.5)

    assert made_up.sync().problems == ()
    rows = contents(made_up.database)
    assert [row["record_id"] for row in rows["records"]] == [record.id]
    assert not made_up.sync().changed


def test_records_of_a_kind_that_gets_tables_later_are_ingested_again(made_up, monkeypatch):
    record = made_up.extract()
    with monkeypatch.context() as patch:
        patch.delitem(KINDS, "extract")
        made_up.sync()
        assert contents(made_up.database)["feature_sets"] == []

    assert made_up.sync().ingested == (record.id,)
    rows = contents(made_up.database)
    assert len(rows["feature_sets"]) == len(rows["records"]) == 1


# The database itself


@pytest.mark.parametrize("damage", ["nonsense", "empty", "truncated", "flipped header"])
def test_a_damaged_database_is_moved_aside_and_made_again(filled, damage):
    before = contents(filled.database)
    data = bytearray(filled.database.read_bytes())
    match damage:
        case "nonsense":
            data = bytearray(b"hello" * 1000)
        case "empty":
            data = bytearray()
        case "truncated":
            del data[len(data) // 2 :]
        case "flipped header":
            data[4096 + 100] ^= 0xFF
            data[8192 + 100] ^= 0xFF
    filled.database.write_bytes(data)

    report = filled.sync()

    aside = list(filled.root.glob("warehouse.damaged-*.duckdb"))
    assert [path.read_bytes() for path in aside] == [bytes(data)]
    assert aside[0].name in report.notes[0]
    assert contents(filled.database) == before
    assert not filled.sync().changed


def test_a_duckdb_file_of_something_else_is_moved_aside_too(made_up):
    made_up.train()
    with duckdb.connect(str(made_up.database)) as connection:
        connection.execute("CREATE TABLE precious AS SELECT 1 AS x")

    made_up.sync()

    (aside,) = made_up.root.glob("warehouse.damaged-*.duckdb")
    with duckdb.connect(str(aside), read_only=True) as connection:
        assert connection.execute("FROM precious").fetchall() == [(1,)]
    assert len(record_ids(made_up.database)) == 1


def test_a_database_that_another_program_writes_is_left_alone(filled):
    before = state(filled.database)
    filled.train()
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(filled.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        with pytest.raises(WarehouseError, match="another program has warehouse"):
            filled.sync()
        other.communicate(b"\n")
    assert list(filled.root.glob("warehouse.damaged-*")) == []
    assert state(filled.database)[0] == before[0]


# Write-ahead logs that killed programs left


def notebook_is_killed(made_up, statement="CREATE TABLE mine AS SELECT 1 AS x"):
    """One opens the live file for writing, writes, and never ends."""
    script = "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute(sys.argv[2])"
    subprocess.run(
        [sys.executable, "-c", f"{script}; os._exit(9)", str(made_up.database), statement],
        check=False,
    )
    assert log_of(made_up).stat().st_size > 0


def log_of(made_up):
    return made_up.root / "warehouse.duckdb.wal"


def strays(made_up):
    return list(made_up.root.glob("warehouse.stray-*.duckdb.wal"))


def test_a_log_that_a_killed_notebook_left_locks_nobody_out(filled):
    notebook_is_killed(filled)
    log = log_of(filled).read_bytes()
    before = record_ids(filled.database)
    assert not filled.sync().changed
    new = filled.train()

    report = filled.sync()

    assert (report.ingested, report.problems) == ((new.id,), ())
    (aside,) = strays(filled)
    assert aside.read_bytes() == log
    assert report.notes == (
        f"warehouse.duckdb.wal was left by a program that was killed while it wrote to "
        f"warehouse.duckdb: moved aside as {aside.name}.",
    )
    assert not log_of(filled).exists()
    assert record_ids(filled.database) == sorted([*before, new.id])
    assert run_query(filled.database, "FROM mine", {}).rows() == [(1,)]
    assert not filled.sync().changed
    assert {finding.verdict for finding in check(filled.runs, filled.database)} == {"pass"}


def test_rows_that_a_log_takes_away_or_adds_are_no_contradiction(filled):
    gone = record_ids(filled.database)[-1]
    notebook_is_killed(filled, f"DELETE FROM records WHERE record_id = '{gone}'")

    report = filled.sync()

    assert (report.ingested, report.problems) == ((gone,), ())
    assert gone in record_ids(filled.database)


def test_a_log_of_another_file_is_moved_aside(filled):
    """As when a new file was put beside it."""
    notebook_is_killed(filled)
    log = log_of(filled).read_bytes()
    log_of(filled).unlink()
    filled.train()
    filled.sync()
    log_of(filled).write_bytes(log)
    before = state(filled.database)
    with pytest.raises(WarehouseError, match=r"run `emcache warehouse sync`, which moves the log"):
        run_query(filled.database, "FROM runs", {})

    report = filled.sync()

    assert "moved aside" in report.notes[0]
    assert (report.ingested, report.changed) == ((), False)
    assert state(filled.database) == before
    assert record_ids(filled.database)
    assert [path.read_bytes() for path in strays(filled)] == [log]
    assert list(filled.root.glob("warehouse.damaged-*")) == []


@pytest.mark.parametrize("harm", ["flipped", "gone with a table", "beside a damaged file"])
def test_a_log_that_spoils_the_file_is_moved_aside(filled, harm):
    before = contents(filled.database)
    notebook_is_killed(
        filled, "DROP TABLE records" if "table" in harm else "CREATE TABLE x (a INT)"
    )
    if harm == "flipped":
        flip(log_of(filled))
    if harm == "beside a damaged file":
        filled.database.write_bytes(b"hello" * 1000)

    report = filled.sync()

    assert "moved aside as warehouse.stray-" in report.notes[0]
    assert contents(filled.database) == before
    assert not filled.sync().changed


@pytest.mark.parametrize("database_is", ["there", "gone"])
def test_a_rebuild_moves_a_log_aside(filled, database_is):
    before = contents(filled.database)
    notebook_is_killed(filled)
    if database_is == "gone":
        filled.database.unlink()
        report = filled.sync()
    else:
        report = rebuild(filled.runs, filled.database)

    assert "moved aside" in report.notes[0]
    assert len(strays(filled)) == 1
    assert contents(filled.database) == before


def test_a_reader_works_while_a_log_is_moved_aside(filled):
    notebook_is_killed(filled)
    count = "SELECT count(*), (SELECT count(*) FROM mine) FROM runs"
    with open_readonly(filled.database) as reader:
        before = reader.execute(count).fetchone()
        filled.train()
        assert filled.sync().changed
        assert reader.execute(count).fetchone() == before


def test_the_log_of_a_notebook_that_still_writes_is_left_alone(filled):
    filled.train()
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); c.execute('CREATE TABLE x (a INT)'); "
        "print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(filled.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        assert log_of(filled).exists()
        with pytest.raises(WarehouseError, match="another program has warehouse"):
            filled.sync()
        assert log_of(filled).exists()
        other.communicate(b"\n")
    assert strays(filled) == []
    assert len(filled.sync().ingested) == 1


def with_files(monkeypatch, change):
    """Let the package hold other files, as another version would."""

    def changed(folder):
        return change(folder, packaged_files(folder))

    monkeypatch.setattr(schema, "packaged_files", changed)


def test_a_changed_view_is_made_again(filled, monkeypatch):
    def change(folder, files):
        view = PackagedFile("views/09_answer.sql", "CREATE VIEW answer AS SELECT 42 AS x;")
        kept = tuple(file for file in files if file.name != "views/04_paper_comparison.sql")
        return (*kept, view) if folder == "views" else files

    with_files(monkeypatch, change)

    assert filled.sync().changed
    assert run_query(filled.database, "FROM answer", {}).rows() == [(42,)]
    with pytest.raises(WarehouseError, match="paper_comparison"):
        run_query(filled.database, "FROM paper_comparison", {})


def test_another_schema_is_a_finding(filled, monkeypatch):
    def change(folder, files):
        edited = [PackagedFile(file.name, file.text + "\n-- edited") for file in files]
        return tuple(edited) if folder == "views" else files

    with monkeypatch.context() as patch:
        with_files(patch, change)
        (found,) = [f for f in check(filled.runs, filled.database) if f.name == "warehouse"]
        assert (found.verdict, "another version" in found.message) == ("warn", True)


def test_a_warehouse_with_a_ledger_of_migrations_is_made_again(filled):
    before = contents(filled.database)
    with duckdb.connect(str(filled.database)) as connection:
        connection.execute("DROP TABLE made_by; CREATE TABLE migrations (name VARCHAR)")

    report = filled.sync()

    assert "was made by another version of emcache" in report.notes[0]
    assert contents(filled.database) == before
    assert not filled.sync().changed


def test_a_reader_keeps_the_file_it_opened(filled):
    with open_readonly(filled.database) as reader:
        before = reader.execute("SELECT count(*) FROM runs").fetchone()
        filled.train()
        assert filled.sync().changed
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == before
        with open_readonly(filled.database) as fresh:
            assert fresh.execute("SELECT count(*) FROM runs").fetchone() == (before[0] + 1,)


def test_a_process_killed_while_it_writes_leaves_the_old_file(filled):
    before = contents(filled.database)
    new = filled.train()
    script = f"""
import sys, time, emcache_warehouse.sync as sync
from pathlib import Path
sync.fill = lambda *args: (print(flush=True), time.sleep(60))
sync.sync(Path({str(filled.runs)!r}), Path({str(filled.database)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    stale = list(filled.root.glob(".warehouse.duckdb.new-*"))
    assert len(stale) == 1

    assert contents(filled.database) == before
    assert filled.sync().ingested == (new.id,)
    assert list(filled.root.glob(".warehouse.duckdb.new-*")) == []


def test_a_folder_that_cannot_be_written_is_a_sentence(filled, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    filled.train()
    monkeypatch.setattr(emcache_warehouse.sync.shutil, "copyfile", refuse)

    with pytest.raises(WarehouseError, match="cannot be written"):
        filled.sync()
    assert len(record_ids(filled.database)) == len(list(filled.runs.iterdir())) - 1


def test_many_records_are_ingested_quickly(made_up):
    """A floor far below the rate that is aimed at: it trips only on another way of working."""
    made_up.sync()
    records = 100
    for seed in range(records):
        made_up.train(seed=seed)

    # Of the processor: whatever else runs on the machine is not in it.
    started = time.process_time()
    report = made_up.sync()
    seconds = time.process_time() - started

    assert len(report.ingested) == records
    assert records / seconds > 50
