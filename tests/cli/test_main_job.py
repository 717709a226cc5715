"""The main job through the command line, on made-up slices."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import emcache_cli.console
from emcache.storage.records import list_record_ids
from emcache.storage.workspace import Workspace, find_workspace

TINY = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "70")
TRAIN = ("--head", "linear", "--learning-rate", "0.05", "--epochs", "3")
COMMAND = str(Path(sys.executable).with_name("emcache"))


@pytest.fixture(scope="module")
def trained_once(make_cells, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    extract = ("extract", "cells", *TINY)
    train = ("train-head", "cells", "--seeds", "0-1", *TRAIN, "--save-predictions")
    return make_cells(tmp_path_factory.mktemp("trained"), extract, train)


@pytest.fixture
def trained(trained_once: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with features and two runs: a copy, for a test to do with as it likes."""
    return find_workspace(shutil.copytree(trained_once.root, tmp_path / "workspace"))


def test_from_slices_to_scores(trained: Workspace, run, cells_root: Path) -> None:
    sql = "select run_id, seed, eval_on, n_slices, iou_fg from run_metrics where split = 'test'"
    rows = run("query", f"{sql} order by seed", cwd=trained.root).json
    assert [(row["seed"], row["eval_on"], row["n_slices"]) for row in rows] == [
        (0, "cells", 2),
        (1, "cells", 2),
    ]
    for row in rows:
        intersection = union = 0
        saved = sorted((trained.runs / row["run_id"] / "predictions/cells").iterdir())
        assert len(saved) == 2
        for path in saved:
            predicted = np.asarray(Image.open(path)) > 0
            mask = Image.open(cells_root / "masks" / path.name)
            true = np.asarray(mask.resize((70, 70), Image.Resampling.NEAREST)) >= 128
            intersection += (predicted & true).sum()
            union += (predicted | true).sum()
        assert row["iou_fg"] == pytest.approx(intersection / (union + 1e-7), abs=1e-12)


def test_rebuilding_gives_the_same_answers(trained: Workspace, run) -> None:
    questions = [
        ("query", "--name", name)
        for name in ("leaderboard", "curves", "worst-slices", "seeds", "cost")
    ]
    before = [run(*question, cwd=trained.root).out for question in questions]
    trained.warehouse.unlink()
    assert run("warehouse", "rebuild", cwd=trained.root).code == 0
    assert [run(*question, cwd=trained.root).out for question in questions] == before
    checked = run("warehouse", "check", "--format", "json", cwd=trained.root)
    assert checked.code == 0
    assert {row["verdict"] for row in checked.json} == {"pass"}


def test_commands_that_make_records_never_open_the_database(trained: Workspace) -> None:
    assert not trained.warehouse.exists()


def test_extract_says_what_it_does(trained: Workspace, run) -> None:
    again = run("extract", "cells", *TINY, cwd=trained.root)
    assert "Nothing to extract" in again.err
    (row,) = again.json
    assert (row["slices"], row["computed"], row["copied"]) == (10, 0, 0)


def test_dry_run_makes_nothing(cells: Workspace, run) -> None:
    before = {path for path in cells.root.rglob("*") if path.name != "files.json"}
    (row,) = run("extract", "cells", *TINY, "--dry-run", cwd=cells.root).json
    assert {path for path in cells.root.rglob("*") if path.name != "files.json"} == before
    assert row["slices"] == 10
    assert row["grid"] == "5x5"
    assert row["token_gb"] == pytest.approx(10 * 25 * 64 * 2 / 1e9)
    assert row["files"] == 10


def test_leaderboard_keeps_protocols_apart(trained: Workspace, run) -> None:
    # A linear head has a learning rate of its own where none is given.
    more = ("--head", "linear", "--epochs", "2", "--seeds", "0")
    assert run("train-head", "cells", *more, cwd=trained.root).code == 0
    rows = run("query", "--name", "leaderboard", cwd=trained.root).json
    assert {(row["protocol"], row["n_runs"]) for row in rows} == {
        ("paper[head=bn-linear, learning_rate=0.05, max_epochs=3]", 2),
        ("paper[head=bn-linear, learning_rate=0.01, max_epochs=2]", 1),
    }


@pytest.mark.parametrize("chart", ["iou", "curves"])
@pytest.mark.parametrize("ending", ["html", "png", "svg", "json"])
def test_charts(trained: Workspace, run, chart: str, ending: str) -> None:
    out = trained.root / f"{chart}.{ending}"
    done = run("chart", chart, "--out", out, cwd=trained.root)
    assert done.code == 0, done
    starts = {"html": b"<!DOCTYPE html>", "png": b"\x89PNG", "svg": b"<svg", "json": b"{"}
    data = out.read_bytes()
    assert data.lstrip().startswith(starts[ending])
    if ending != "png":
        assert "random:0 (untrained)" in data.decode()


@pytest.mark.browser
@pytest.mark.parametrize("chart", ["iou", "curves"])
def test_pages_draw_without_a_network(
    trained: Workspace, run, browser: str, tmp_path: Path, chart: str
) -> None:
    page = trained.root / "page.html"
    assert run("chart", chart, "--out", page, cwd=trained.root).code == 0
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000",
            "--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("mark-") > 2
    assert "untrained" in done.stdout


def test_query_formats_and_output_files(trained: Workspace, run) -> None:
    sql = "select seed, iou_fg from run_metrics order by seed"
    assert (
        run("query", "-", text=sql, cwd=trained.root).json
        == run("query", sql, cwd=trained.root).json
    )
    table = run("query", sql, "--format", "table", cwd=trained.root).out
    assert table.splitlines()[0].split() == ["seed", "iou_fg"]
    for name in ("a.csv", "a.json", "a.jsonl", "a.md", "a.parquet"):
        assert run("query", sql, "--out", name, cwd=trained.root).code == 0
    assert pl.read_parquet(trained.root / "a.parquet")["seed"].to_list() == [0, 1]
    assert pl.read_csv(trained.root / "a.csv")["seed"].to_list() == [0, 1]
    lines = (trained.root / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1]
    one = run("query", "select seed from runs where seed = $s", "-p", "s=1", cwd=trained.root)
    assert one.json == [{"seed": 1}]


def test_query_draws(trained: Workspace, run) -> None:
    sql = "select epoch, val_loss from epochs"
    arguments = ("--chart", "line", "-x", "epoch", "-y", "val_loss", "--out", "c.svg")
    assert run("query", sql, *arguments, cwd=trained.root).code == 0
    assert (trained.root / "c.svg").read_text().startswith("<svg")


def test_the_papers_tables_are_there(cells: Workspace, run) -> None:
    sql = "select iou_fg_mean from paper_results where paper_table = 8 and eval_on = 'lucchi++'"
    rows = run("query", f"{sql} order by all", cwd=cells.root).json
    assert [row["iou_fg_mean"] for row in rows] == [0.007, 0.019]
    (count,) = run("query", "select count(*) as n from paper_parameters", cwd=cells.root).json
    assert count["n"] == 9


def test_a_terminal_gets_a_table(trained: Workspace) -> None:
    parent, child = pty.openpty()
    subprocess.run(
        [COMMAND, "query", "select 1 as one"], cwd=trained.root, stdout=child, check=True
    )
    os.close(child)
    assert os.read(parent, 1000).decode().split() == ["one", "---", "1"]
    os.close(parent)


@pytest.mark.parametrize("command", ["train-head", "train-lora"])
def test_a_training_is_forgotten_once_its_rows_are_out(
    cells: Workspace, run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    words = [command, "cells", *TINY, "--seeds", "0-1", "--epochs", "1", "--head", "linear"]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(emcache_cli.console, "show_rows", stopped)
        assert run(*words, cwd=cells.root).code == 130
    trained = [name for name in list_record_ids(cells.runs) if command in name]
    assert [row["run_id"] for row in run(*words, cwd=cells.root).json] == trained
    anew = [row["run_id"] for row in run(*words, cwd=cells.root).json]
    assert not set(anew) & set(trained)


def test_ctrl_c_says_what_was_kept(cells: Workspace) -> None:
    child = subprocess.Popen(
        [COMMAND, "train-head", "cells", *TINY, "--seeds", "0-99", "--epochs", "50"],
        cwd=cells.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not any(cells.cache.glob("*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=600)
    assert child.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith("Interrupted. Finished records")
    assert "Traceback" not in err
    # What is left is what the same command goes on from, and no note of a holder.
    left = [path.name for path in cells.runs.iterdir() if path.name[0] == "."]
    assert all(name.startswith(".training-") for name in left)
    assert not [name for name in left if name.endswith(".holder")]
