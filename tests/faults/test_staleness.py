"""What enters a key changes it, and nothing else does."""

from __future__ import annotations

import os
import shutil

from emcache.cache.extract import run_extraction
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection
from emcache.progress import Quiet
from emcache.storage.records import read_record
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import check, sync

OPTIONS = ExtractOptions("tiny", "random:0", 56)


def plan(workspace):
    return plan_extraction(workspace, Selection("cells", None), OPTIONS, Quiet())


def test_file_times_change_nothing(cells, cells_root):
    first = run_extraction(plan(cells), Quiet())
    for path in cells_root.rglob("*.png"):
        os.utime(path, (1, 1))
    (cells.cache / "files.json").unlink()
    again = plan(cells)
    assert again.fingerprint == first.feature_set.fingerprint
    assert run_extraction(again, Quiet()).computed == 0


def test_a_changed_slice_is_computed_and_no_other(cells, cells_root):
    first = run_extraction(plan(cells), Quiet())
    images = sorted((cells_root / "images").iterdir())
    data = images[0].read_bytes()
    shutil.copy(images[1], images[0])
    # A slice of the same pixels under two names is not looked at here: it only has to be another.
    changed = plan(cells)
    assert changed.fingerprint != first.feature_set.fingerprint
    images[0].write_bytes(data)
    assert plan(cells).fingerprint == first.feature_set.fingerprint


def test_a_record_outlives_its_features_and_says_so(cells):
    run_extraction(plan(cells), Quiet())
    protocol = Protocol(head="linear", max_epochs=1)
    (record,) = run_training(
        cells, TrainingRequest(datasets=["cells"], seeds=[0], protocol=protocol), Quiet()
    )
    sync(cells.runs, cells.warehouse)
    before = run_query(cells.warehouse, "FROM leaderboard", {})
    features = {f.name: f for f in check(cells.runs, cells.warehouse)}["features"]
    assert features.verdict == "pass"
    shutil.rmtree(cells.cache)
    cells.cache.mkdir()
    assert read_record(record.folder).config["feature_sets"]
    assert run_query(cells.warehouse, "FROM leaderboard", {}).rows() == before.rows()
    features = {f.name: f for f in check(cells.runs, cells.warehouse)}["features"]
    assert features.verdict == "pass"
    assert "1 feature set that runs were trained on has gone from the cache" in features.message
