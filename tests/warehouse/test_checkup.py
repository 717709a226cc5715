"""`warehouse check`: says what is wrong and changes nothing."""

from __future__ import annotations

import shutil

import duckdb
import pytest

from emcache_warehouse.checkup import check


def verdicts(made_up):
    return {f.name: f.verdict for f in check(made_up.runs, made_up.database)}


def finding(made_up, name):
    (found,) = [f for f in check(made_up.runs, made_up.database) if f.name == name]
    return found


ALL_WELL = dict.fromkeys(("features", "records", "warehouse", "pending", "missing", "rows"), "pass")


def test_all_is_well(filled):
    assert verdicts(filled) == ALL_WELL


def test_it_changes_nothing(filled):
    filled.train()
    before = filled.database.stat().st_mtime_ns, sorted(filled.root.rglob("*"))
    check(filled.runs, filled.database)
    assert (filled.database.stat().st_mtime_ns, sorted(filled.root.rglob("*"))) == before


def test_a_warehouse_that_is_not_there_fails(made_up):
    found = finding(made_up, "warehouse")
    assert found.verdict == "fail"
    assert "emcache warehouse sync" in found.remedy


def test_a_damaged_record_fails_even_when_it_was_ingested_long_ago(filled):
    record = filled.train()
    filled.sync()
    record.file("epochs.parquet").write_bytes(b"PAR1")

    found = finding(filled, "records")

    assert found.verdict == "fail"
    assert record.id in found.message
    assert verdicts(filled) == ALL_WELL | {"records": "fail"}


def test_a_record_not_ingested_yet_is_a_warning(filled):
    record = filled.train()

    found = finding(filled, "pending")

    assert found.verdict == "warn"
    assert record.id in found.message
    assert "emcache warehouse sync" in found.remedy
    assert verdicts(filled) == ALL_WELL | {"pending": "warn"}


def test_an_ingested_record_that_has_gone_is_a_warning(filled):
    old = filled.dataset("vnc", n_slices=2)
    new = filled.dataset("vnc", n_slices=3)
    filled.sync()
    shutil.rmtree(new.folder)

    found = finding(filled, "missing")

    assert found.verdict == "warn"
    assert new.id in found.message
    assert old.id not in found.message
    assert verdicts(filled) == ALL_WELL | {"missing": "warn"}


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("UPDATE slice_metrics SET tp = tp + 1 WHERE slice_id = '01'", "slice_metrics"),
        ("DELETE FROM epochs WHERE epoch = 2", "epochs"),
        ("INSERT INTO slices SELECT * FROM slices LIMIT 1", "slices"),
        ("UPDATE paper_results SET iou_fg_mean = 0.9 WHERE paper_table = 1", "paper_results"),
    ],
)
def test_rows_that_the_records_do_not_give_fail(filled, statement, table):
    with duckdb.connect(str(filled.database)) as connection:
        connection.execute(statement)

    found = finding(filled, "rows")

    assert found.verdict == "fail"
    assert f"table {table} " in found.message
    assert "rebuild" in found.remedy


def test_a_damaged_database_fails(filled):
    filled.database.write_bytes(filled.database.read_bytes()[:9000])

    found = finding(filled, "warehouse")

    assert found.verdict == "fail"
    assert "damaged" in found.message
    assert "rebuild" in found.remedy


def test_a_damaged_block_of_rows_fails(filled):
    """The header opens; only reading the rows meets the damage."""
    data = bytearray(filled.database.read_bytes())
    start = data.rfind(b"max_epochs=3")
    data[start] ^= 0xFF
    filled.database.write_bytes(data)

    assert "fail" in verdicts(filled).values()
