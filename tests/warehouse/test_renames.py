"""Rows of datasets that were given other names."""

from __future__ import annotations

import shutil

import duckdb
import pytest

from emcache_warehouse.query import run_query
from emcache_warehouse.sync import check


def renamed(made_up, old: str, new: str):
    record = made_up.other("dataset-rename", old_name=old, new_name=new)
    made_up.dataset(new)
    return record


def everything(made_up) -> str:
    """All cells of all tables that name datasets, as text."""
    tables = run_query(
        made_up.database,
        "SELECT DISTINCT table_name FROM duckdb_columns() WHERE database_name = current_database() "
        "AND column_name IN ('dataset', 'train_on', 'eval_on', 'domain', 'domain_a', 'selections')",
        {},
    )["table_name"]
    skipped = ("paper_results", "paper_comparison", "literature_results")
    return "\n".join(
        str(run_query(made_up.database, f'FROM "{name}"', {}).rows())
        for name in tables
        if name not in skipped
    )


def names_in(made_up, name: str) -> bool:
    text = everything(made_up).replace("vnc-small", "")
    return f"'{name}'" in text or f"'{name}:" in text or f" + {name}'" in text


@pytest.mark.parametrize("at_once", [pytest.param(False, marks=pytest.mark.slow), True])
def test_what_is_recorded_follows_a_new_name(made_up, filled_once, at_once):
    shutil.copytree(filled_once.root, made_up.root, dirs_exist_ok=True)
    if at_once:
        made_up.database.unlink()
    assert at_once or names_in(made_up, "vnc")
    renamed(made_up, "vnc", "cord")
    report = made_up.sync()
    assert report.problems == ()
    assert not names_in(made_up, "vnc")
    assert names_in(made_up, "cord")
    with duckdb.connect(str(made_up.database), read_only=True) as connection:
        train_on = connection.execute("SELECT DISTINCT train_on FROM leaderboard").fetchall()
    assert sorted(name for (name,) in train_on) == ["cord", "lucchi++ + cord"]
    # A dataset that gets the old name later is another one.
    made_up.dataset("vnc")
    made_up.train(("vnc",), 7)
    made_up.sync()
    assert names_in(made_up, "vnc")
    assert names_in(made_up, "cord")
    # A second renaming, and rows as a rebuild gives them.
    renamed(made_up, "cord", "nerve")
    made_up.sync()
    assert not names_in(made_up, "cord")
    findings = {f.name: (f.verdict, f.message) for f in check(made_up.runs, made_up.database)}
    assert findings["rows"][0] == "pass", findings["rows"]
