"""A workspace of an earlier version: what it holds is found, and nothing of it is made again.

``tests/fixtures`` has one of eight made-up slices, made when all modules stood side by side: tokens
of an untrained tiny backbone, a run of either regime, and their evaluations.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import emcache
import emcache.models.loading
import emcache.models.weights.finding
from emcache.cache.extract import run_extraction
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection, load_dataset
from emcache.progress import Quiet
from emcache.studies.records import StudyRecords
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import plan_training
from emcache_warehouse import connect


@pytest.fixture
def earlier(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> emcache.Workspace:
    # A processor of another kind draws other random weights, by a last digit; those of the
    # fixture stand for the ones of this machine.
    stored = "396b60f57f74db021dc27afe46d540bd329f92aebfd3e2c7bf3d424cc9c358cf"
    monkeypatch.setattr(emcache.models.weights.finding, "_random_sha256", lambda *_: stored)
    monkeypatch.setattr(emcache.models.loading, "state_sha256", lambda *_: stored)
    with tarfile.open(checkout / "tests/fixtures/workspace-before-rooms.tar.gz") as packed:
        packed.extractall(tmp_path / "earlier", filter="data")
    return emcache.Workspace.open(tmp_path / "earlier")


def test_its_features_are_found_and_read(earlier: emcache.Workspace) -> None:
    place = earlier.place
    options = ExtractOptions("tiny", "random:0", 56, precision="float32")
    job = plan_extraction(place, Selection("cells", None), options, Quiet())
    extraction = run_extraction(job, Quiet())
    assert (extraction.computed, extraction.copied, extraction.record) == (0, 0, None)
    (stored,) = earlier.feature_sets()
    assert stored.tokens(0).shape == (4, 4, 64)
    assert np.isfinite(stored.pooled()).all()


def test_its_runs_have_the_fingerprints_of_today(earlier: emcache.Workspace) -> None:
    place = earlier.place
    head, lora = earlier.runs()
    protocol = Protocol(head="linear", learning_rate=0.01, max_epochs=2)
    options = {"seeds": [0], "protocol": protocol, "precision": "float32"}
    request = FeatureRequest("tiny", "random:0", 56, precision="float32")
    setting = plan_training(
        place, TrainingRequest(datasets=["cells"], features=request, **options), Quiet()
    )
    assert setting.fingerprint(0) == head.config["run_fingerprint"]
    protocol = Protocol(head="linear", max_epochs=1, lora_rank=2)
    options = {"seeds": [0], "protocol": protocol, "precision": "float32"}
    choice = FeatureRequest("tiny", "random:0", 56)
    setting = plan_training(
        place,
        TrainingRequest(datasets=["cells"], regime="lora", features=choice, **options),
        Quiet(),
    )
    assert setting.fingerprint(0) == lora.config["run_fingerprint"]
    records = StudyRecords(place)
    assert set(records.runs.values()) == {head.id, lora.id}
    cells = load_dataset(place, "cells")
    for run in (head, lora):
        assert records.is_evaluated(run.id, cells, "test", run.run.recipe)


def test_its_runs_predict_and_its_records_are_rows(earlier: emcache.Workspace) -> None:
    image = np.asarray(Image.open(earlier.root / "data/images/0.png"))
    for run in earlier.runs():
        assert run.predict(image).mask.shape == image.shape
    scores = connect(earlier.root).query(
        "select regime, n_slices, iou_fg from run_metrics where split = 'test' order by regime"
    )
    assert scores["regime"].to_list() == ["frozen", "lora"]
    assert scores["iou_fg"].to_list() == [run.scores["iou"][-1] for run in earlier.runs()]
