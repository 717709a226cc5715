"""Records and warehouse as the doctor looks at them."""

from __future__ import annotations

import json

import pytest

from emcache.findings import Verdict
from emcache.storage.hashing import json_sha256
from emcache_warehouse.health import examine_warehouse

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
LOOKED_AT = dict.fromkeys(("records", "warehouse", "pending", "missing"), PASS)


def look(made_up, *, thorough=False):
    return examine_warehouse(made_up.runs, made_up.database, thorough=thorough)


def verdicts(made_up, *, thorough=False):
    return {finding.name: finding.verdict for finding in look(made_up, thorough=thorough)}


def finding(made_up, name, *, thorough=False):
    (found,) = [f for f in look(made_up, thorough=thorough) if f.name == name]
    return found


def test_all_is_well(filled):
    assert verdicts(filled) == LOOKED_AT
    assert verdicts(filled, thorough=True) == {**LOOKED_AT, "features": PASS, "rows": PASS}
    assert {f.remedy for f in look(filled, thorough=True)} == {""}


@pytest.mark.parametrize("thorough", [False, True])
def test_nothing_is_changed(filled, thorough):
    filled.train()
    before = filled.database.stat().st_mtime_ns, sorted(filled.root.rglob("*"))
    look(filled, thorough=thorough)
    assert (filled.database.stat().st_mtime_ns, sorted(filled.root.rglob("*"))) == before


@pytest.mark.parametrize("thorough", [False, True])
def test_no_warehouse_is_well_until_there_is_a_record(made_up, thorough):
    assert verdicts(made_up, thorough=thorough) == {"records": PASS, "warehouse": PASS}
    made_up.train()
    found = finding(made_up, "warehouse", thorough=thorough)
    assert found.verdict is WARN
    assert "`emcache warehouse sync`" in found.remedy


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("damage", [lambda data: data[:9000], lambda _: b"", lambda _: b"x" * 9000])
def test_a_damaged_warehouse_fails(filled, damage, thorough):
    filled.database.write_bytes(damage(filled.database.read_bytes()))
    found = finding(filled, "warehouse", thorough=thorough)
    assert found.verdict is FAIL
    assert "`emcache warehouse rebuild`" in found.remedy


def test_a_folder_in_the_place_of_the_warehouse_fails(made_up):
    made_up.database.mkdir()
    assert verdicts(made_up)["warehouse"] is FAIL


def test_a_record_that_waits_is_a_warning(filled):
    record = filled.train()
    found = finding(filled, "pending")
    assert found.verdict is WARN
    assert record.id in found.message
    assert found.remedy == "run `emcache warehouse sync`"


def test_a_record_that_has_gone_is_a_warning(filled):
    record = filled.train()
    filled.sync()
    record.folder.rename(filled.root / "elsewhere")
    found = finding(filled, "missing")
    assert found.verdict is WARN
    assert "`emcache warehouse sync`" in found.remedy


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "epochs.parquet is missing"),
        (lambda file: file.write_bytes(b"PAR1"), "epochs.parquet has 4 bytes instead of"),
        (lambda file: file.with_name("record.json").write_bytes(b"{"), "record.json"),
        (lambda file: file.with_name("record.json").unlink(), "record.json"),
    ],
)
def test_a_damaged_record_fails(filled, damage, said):
    record = filled.train()
    damage(record.file("epochs.parquet"))
    found = finding(filled, "records")
    assert found.verdict is FAIL
    assert record.id in found.message
    assert said in found.message
    assert "remove it" in found.remedy
    # It is not waited for.
    assert verdicts(filled) == LOOKED_AT | {"records": FAIL}


def test_a_flipped_byte_is_found_by_a_thorough_look(filled):
    file = filled.train().file("epochs.parquet")
    filled.sync()
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)
    assert verdicts(filled) == LOOKED_AT
    assert verdicts(filled, thorough=True)["records"] is FAIL
    filled.database.unlink()
    assert verdicts(filled, thorough=True)["records"] is FAIL


def test_a_record_of_another_shape_fails(filled):
    path = filled.train().folder / "record.json"
    content = json.loads(path.read_text())
    content["files"] = 3
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": json_sha256(content)}))
    assert verdicts(filled) == LOOKED_AT | {"records": FAIL}


def test_many_damaged_records_are_counted(made_up):
    for seed in range(8):
        made_up.train(seed=seed).file("epochs.parquet").unlink()
    *five, rest = [f for f in look(made_up) if f.name == "records"]
    assert len(five) == 5
    assert "3 more of 8 records" in rest.message
    assert "`emcache warehouse check`" in rest.remedy
