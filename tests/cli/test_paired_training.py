"""Training on two sources of different sizes in one run."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

import emcache.training.trainer
from emcache.cache.extract import run_extraction
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection, load_dataset
from emcache.data.register import add_dataset
from emcache.errors import StoreError, UsageError
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache.training.sampling import Sampling
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import sync

LINEAR = Protocol(head="linear", learning_rate=0.05, max_epochs=3)
REQUEST = FeatureRequest(backbone="tiny", weights="random:0", longest_edge=70)


@pytest.fixture
def both(cells: Workspace, tmp_path: Path) -> Workspace:
    """``cells``, square, beside ``wide``, of another shape and number of slices."""
    root = tmp_path / "wide"
    write_domain(root, STYLES["soft"], slices=7, size=90, seed=5)
    for path in root.rglob("*.png"):
        Image.open(path).crop((0, 0, 90, 56)).save(path)
    options = {"images": "images/*.png", "masks": "masks/*.png", "split": ["random:0.3:1"]}
    add_dataset(cells, "wide", "folder", root, options, Quiet())
    return cells


def train(workspace: Workspace, sampling: Sampling = Sampling.NATURAL) -> Record:
    options = {"seeds": [0], "protocol": LINEAR, "sampling": sampling, "save_predictions": True}
    (record,) = run_training(
        workspace, TrainingRequest(datasets=["cells", "wide"], features=REQUEST, **options), Quiet()
    )
    return record


def test_every_score_equals_an_independent_count(both: Workspace, tmp_path: Path) -> None:
    record = train(both)
    assert record.config["train_on"] == "cells + wide"
    intersection, union = {}, {}
    for name, size in (("cells", (70, 70)), ("wide", (70, 42))):
        tp = total = 0
        for item in load_dataset(both, name).slices:
            if item.split != "test":
                continue
            saved = Image.open(record.file(f"predictions/{name}/{item.id}.png"))
            assert saved.size == size
            predicted = np.asarray(saved) > 0
            mask = Image.open(tmp_path / name / "masks" / f"{item.id}.png")
            true = np.asarray(mask.resize(size, Image.Resampling.NEAREST)) >= 128
            tp += (predicted & true).sum()
            total += (predicted | true).sum()
        intersection[name], union[name] = tp, total
    scores = {name: intersection[name] / (union[name] + 1e-7) for name in union}
    scores["macro"] = (scores["cells"] + scores["wide"]) / 2
    scores["pooled"] = sum(intersection.values()) / (sum(union.values()) + 1e-7)
    sync(both.runs, both.warehouse)
    rows = run_query(both.warehouse, "select eval_on, iou_fg from run_metrics", {})
    found = dict(rows.iter_rows())
    assert found.keys() == scores.keys()
    for name, score in scores.items():
        assert found[name] == pytest.approx(score, abs=1e-12), name
    assert len(set(scores.values())) == 4


def test_a_balanced_run_steps_on_one_slice_of_each(
    both: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    real = emcache.training.trainer.Trainer.step

    def step(self, batches):
        seen.append(sorted(p for batch in batches for p in batch.positions))
        return real(self, batches)

    monkeypatch.setattr(emcache.training.trainer.Trainer, "step", step)
    record = train(both, Sampling.BALANCED)
    assert record.config["sampling"] == "balanced"
    # cells has positions 0 to 9, wide the next seven.
    assert seen
    assert all(len(step) == 2 and step[0] < 10 <= step[1] for step in seen)


def test_predictions_hold_no_padding(both: Workspace) -> None:
    rows = pl.read_parquet(train(both).file("slice_metrics.parquet"))
    pixels = rows.select("eval_on", n=pl.sum_horizontal("tp", "fp", "fn", "tn")).unique()
    assert dict(pixels.iter_rows()) == {"cells": 70 * 70, "wide": 42 * 70}


def test_features_of_different_kinds_are_told_apart(both: Workspace) -> None:
    for name, weights in (("cells", "random:0"), ("wide", "random:1")):
        chosen = ExtractOptions("tiny", weights, 70)
        run_extraction(plan_extraction(both, Selection.parse(name), chosen, Quiet()), Quiet())
    options = {"seeds": [0], "protocol": LINEAR}
    with pytest.raises(StoreError, match=r"cells and wide differ \(weights random:0 and random:1"):
        run_training(both, TrainingRequest(datasets=["cells", "wide"], **options), Quiet())


def test_one_name_twice(both: Workspace) -> None:
    with pytest.raises(UsageError, match="dataset cells is named twice"):
        run_training(
            both,
            TrainingRequest(
                datasets=["cells", "cells"], features=REQUEST, seeds=[0], protocol=LINEAR
            ),
            Quiet(),
        )
