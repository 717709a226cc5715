"""The head that reads the slice beside its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import load_dataset
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.evaluation.trained_run import find_run
from emcache.models.heads import HeadKind, build_head, count_parameters
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training import protocol as protocols
from emcache.training.batches import Residency
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train

TINY = FeatureRequest("tiny", "random:0", 70)


def test_every_head_is_one_of_the_protocol() -> None:
    assert get_args(HeadKind) == get_args(protocols.Head)


def test_parameters_are_those_that_its_description_states() -> None:
    plain, skip = build_head("deconv", 384, 0), build_head("deconv-skip", 384, 0)
    assert count_parameters(skip) - count_parameters(plain) == 2832


def test_it_sees_what_no_token_shows() -> None:
    head = build_head("deconv-skip", 8, 0).eval()
    tokens, images = torch.zeros(1, 8, 2, 2), torch.zeros(1, 3, 28, 28)
    changed = images.clone()
    changed[0, :, 14, 14] = 5.0
    with torch.inference_mode():
        difference = (head(tokens, (28, 28), changed) - head(tokens, (28, 28), images)).abs()
    where = difference.sum(dim=(0, 1)).nonzero()
    assert where.min() == 12
    assert where.max() == 16  # two 3x3 convolutions
    assert head(tokens, (50, 40), images).shape == (1, 2, 50, 40)


@pytest.mark.parametrize("regime", ["frozen", "lora"])
def test_trained_scored_and_applied(cells: Workspace, tmp_path: Path, regime: str) -> None:
    protocol = Protocol(head="deconv-skip", learning_rate=0.001, max_epochs=1)
    requests = [
        TrainingRequest(
            datasets=["cells"],
            regime=regime,
            features=TINY,
            protocol=protocol,
            resident=resident,
            precision="float32",
            device="cpu",
        )
        for resident in (Residency.RAM, Residency.DISK)
    ]
    (record,), (streamed,) = (train(cells, request, Quiet()) for request in requests)
    states = [
        find_run(cells, item.id).load_head(torch.device("cpu")).state_dict()
        for item in (record, streamed)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    options = EvaluationOptions(device="cpu")
    again = evaluate_run(cells, record.id, ["cells:test"], options, Quiet())
    ours, theirs = (
        pl.read_parquet(item.file("slice_metrics.parquet")).select("slice_id", "class", "tp", "fp")
        for item in (record, again)
    )
    assert ours.equals(theirs)
    item = next(item for item in load_dataset(cells, "cells").slices if item.split == "test")
    image = Path(str(item.image.path))
    files, _ = predict(
        cells, record.id, [image], tmp_path / "out", PredictionOptions(device="cpu"), Quiet()
    )
    assert np.asarray(Image.open(files[0].mask)).shape == np.asarray(Image.open(image)).shape
