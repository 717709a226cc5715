"""``emcache run``: a grid that is killed ends as one that was not."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from emcache_bench.synthetic import STYLES, write_domain

from emcache.data.register import add_dataset
from emcache.progress import Quiet
from emcache.storage.records import list_record_ids
from emcache.storage.workspace import Workspace, init_workspace
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import sync

STUDY = """
[[grid]]
backbones = ["tiny"]
regimes = ["frozen", "lora"]
train_on = ["a", ["a", "b"]]
seeds = "0-2"
weights = "random:0"
longest_edge = 70
[grid.protocol]
head = "linear"
learning_rate = 1e-2
max_epochs = 3
"""
# What docs/studies.md says may differ.
IDENTITY = "runs.run_fingerprint"


def make(folder: Path) -> Workspace:
    workspace = init_workspace(folder)[0]
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    for name, style, size in (("a", "sharp", 84), ("b", "soft", 70)):
        root = folder.parent / "data" / name
        if not root.is_dir():
            write_domain(root, STYLES[style], slices=8, size=size, seed=3)
        add_dataset(workspace, name, "folder", root, masked, Quiet())
    (folder / "study.toml").write_text(STUDY)
    return workspace


def rows(workspace: Workspace) -> dict[str, list[dict[str, Any]]]:
    """Everything the warehouse says of the runs, but ids, times and the place."""
    sync(workspace.runs, workspace.warehouse)
    statements = {
        "runs": "SELECT * EXCLUDE (run_id, train_seconds, peak_memory_bytes) FROM runs "
        "ORDER BY run_fingerprint",
        "epochs": f"SELECT {IDENTITY}, epochs.* EXCLUDE (run_id, seconds) "
        "FROM epochs JOIN runs USING (run_id) ORDER BY ALL",
        "slice_metrics": f"SELECT {IDENTITY}, slice_metrics.* EXCLUDE (run_id) "
        "FROM slice_metrics JOIN runs USING (run_id) ORDER BY ALL",
        "feature_sets": "SELECT * EXCLUDE (record_id, compute_seconds, total_bytes) "
        "FROM feature_sets ORDER BY ALL",
        "leaderboard": "FROM leaderboard ORDER BY ALL",
    }
    return {
        name: run_query(workspace.warehouse, statement, {}).to_dicts()
        for name, statement in statements.items()
    }


def start(workspace: Workspace) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("emcache"), "run", "study.toml", "--device", "cpu"],
        cwd=workspace.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


# The kills of tests/faults have a study too.
@pytest.mark.slow
def test_a_killed_study_ends_with_the_rows_of_an_unbroken_one(run, tmp_path: Path) -> None:
    unbroken, broken = make(tmp_path / "unbroken"), make(tmp_path / "broken")
    result = run("run", "study.toml", "--device", "cpu", cwd=unbroken.root)
    assert result.code == 0, result
    assert [row["trained"] for row in result.json] == [3, 3, 3, 3]

    process = start(broken)
    # At least two runs, and most of the study still to come.
    while sum("train-head" in name for name in list_record_ids(broken.runs)) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = run("run", "study.toml", "--dry-run", cwd=broken.root).json
    assert 0 < sum(row["done"] for row in left) < 12
    again = run("run", "study.toml", "--device", "cpu", cwd=broken.root)
    assert again.code == 0, again
    assert sum(row["trained"] for row in again.json) == 12 - sum(row["done"] for row in left)

    expected, found = rows(unbroken), rows(broken)
    assert len(expected["runs"]) == 12
    for name in expected:
        assert pl.DataFrame(found[name]).equals(pl.DataFrame(expected[name])), name


def test_a_plan_is_printed_and_nothing_is_done(run, tmp_path: Path) -> None:
    workspace = make(tmp_path / "w")
    before = list_record_ids(workspace.runs)
    result = run("run", "study.toml", "--dry-run", cwd=workspace.root)
    assert [(row["seeds"], row["done"], row["extract_slices"]) for row in result.json] == [
        (3, 0, 8),
        (3, 0, 8),
        (3, 0, 0),
        (3, 0, 0),
    ]
    assert "Study study: 12 runs, 0 done, 12 to train" in result.err
    assert list_record_ids(workspace.runs) == before
    assert not workspace.warehouse.exists()


def test_mistakes(run, fails, tmp_path: Path) -> None:
    workspace = make(tmp_path / "w")
    assert "there is no study nope.toml" in fails("run", "nope.toml", cwd=workspace.root).err
    (workspace.root / "study.toml").write_text(STUDY.replace('["a", "b"]', '["a", "c"]'))
    assert "study study: " in fails("run", "study.toml", cwd=workspace.root).err
    shutil.rmtree(tmp_path / "data" / "b")
    (workspace.root / "study.toml").write_text(STUDY)
    assert "is not a folder" in fails("run", "study.toml", cwd=workspace.root).err
