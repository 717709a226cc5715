"""Out of the warehouse: Parquet for other engines, frames and charts for notebooks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import altair as alt
import duckdb
import polars as pl
import pytest

from emcache.errors import UsageError, WorkspaceError
from emcache.storage.workspace import init_workspace
from emcache_warehouse.charts.kinds import CHARTS
from emcache_warehouse.export import export_warehouse
from emcache_warehouse.notebook import connect
from emcache_warehouse.query import run_query
from emcache_warehouse.schema import describe_schema

PAGE = Path(__file__).parents[2] / "docs" / "notebook.md"


def test_every_table_and_view_comes_out_whole(filled_once, tmp_path):
    database = filled_once.database
    written = export_warehouse(database, tmp_path / "out")

    meanings = describe_schema(database)
    names = set(meanings["name"])
    assert {"runs", "gaps", "embeddings", "leaderboard", "embeddings_384"} <= names
    assert set(written["file"]) == {f"{name}.parquet" for name in names}
    for name in names:
        there = pl.read_parquet(tmp_path / "out" / f"{name}.parquet")
        here = run_query(database, f'FROM "{name}"', {})
        assert there.schema == here.schema, name
        # Views are in no order of their own.
        assert sorted(map(repr, there.rows())) == sorted(map(repr, here.rows())), name
    # Another engine reads them, fixed-size arrays included.
    path = tmp_path / "out" / "embeddings_384.parquet"
    (other,) = duckdb.sql(f"SELECT count(*), min(len(vector)) FROM '{path}'").fetchall()
    assert other == (run_query(database, "FROM embeddings_384", {}).height, 384)


def test_the_dictionary_says_what_every_column_means(filled_once, tmp_path):
    export_warehouse(filled_once.database, tmp_path / "out")
    text = (tmp_path / "out" / "data-dictionary.md").read_text()
    table = pl.read_parquet(tmp_path / "out" / "data-dictionary.parquet")
    assert table["meaning"].is_not_null().all()
    for row in table.iter_rows(named=True):
        assert f"## `{row['name']}` ({row['kind']})" in text
        assert f"| `{row['column']}` |" in text


def test_a_folder_that_holds_something_is_left_alone(filled_once, tmp_path):
    (tmp_path / "out").mkdir()
    export_warehouse(filled_once.database, tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="holds something already"):
        export_warehouse(filled_once.database, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


# Notebooks


@pytest.fixture(scope="module")
def opened(filled_once, tmp_path_factory):
    """A workspace in a notebook, under the name that the page in the docs uses."""
    root = tmp_path_factory.mktemp("notebook") / "demo"
    shutil.copytree(filled_once.root, root)
    init_workspace(root)
    return connect(root)


def test_a_notebook_asks_and_draws(opened):
    frame = opened.query("SELECT seed FROM runs WHERE seed = $seed", seed=1)
    assert isinstance(frame, pl.DataFrame)
    assert frame["seed"].to_list() == [1, 1]
    named = opened.query("SELECT $text AS text, $nothing AS nothing", text="1", nothing=None)
    assert named.rows() == [("1", None)]
    assert opened.named("worst-slices", limit=3).height == 3
    drawn = 0
    for name in CHARTS:
        if name != "audit":
            assert isinstance(opened.chart(name), alt.TopLevelMixin), name
            drawn += 1
    assert drawn == len(CHARTS) - 1
    with pytest.raises(
        UsageError, match="there is no chart 'bars'; known: alignment, audit, bench"
    ):
        opened.chart("bars")
    with pytest.raises(WorkspaceError):
        connect(opened.workspace.root.parent / "nowhere")


def test_the_page_runs(opened, monkeypatch, capsys):
    """Every block of the page in the docs, one after the other, as in a notebook."""
    monkeypatch.chdir(opened.workspace.root.parent)
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```\n(?:```\n(.*?)```)?", page, re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    for block, said in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
        printed = capsys.readouterr().out
        # The figures are those of another workspace; what each column is called may not differ.
        assert _columns(printed) == _columns(said)
    assert (opened.workspace.root.parent / "iou.html").stat().st_size > 500_000


def _columns(table: str) -> list[str]:
    """Names and types of a printed frame's columns."""
    rows = [line for line in table.splitlines() if line.startswith("│")]
    return [cell for row in (rows[0], rows[2]) for cell in re.split(r"[│┆ ]+", row)] if rows else []


def test_the_schema_of_one_table(made_up):
    made_up.train()
    made_up.sync()
    every = describe_schema(made_up.database)
    one = describe_schema(made_up.database, "epochs")
    assert one.equals(every.filter(pl.col("name") == "epochs"))
    assert one["column"].to_list()[:2] == ["run_id", "epoch"]
    with pytest.raises(UsageError, match=r"no table or view 'epoch'; did you mean epochs\?"):
        describe_schema(made_up.database, "epoch")
