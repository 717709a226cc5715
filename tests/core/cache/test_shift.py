"""A finer grid of tokens from shifted passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from emcache.cache.extract import run_extraction
from emcache.cache.feature_jobs import job_of
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, parse_shift, plan_extraction
from emcache.data.dataset import Selection, load_dataset
from emcache.errors import UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.gap.run import GapOptions, measure_gaps
from emcache.models.backbones.base import Features, random_backbone, shifted_layers
from emcache.models.backbones.registry import find_backbone
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train

OPTIONS = ExtractOptions("tiny", "random:0", 56, precision="float32", device="cpu")
CELLS = Selection("cells", None)


class Means:
    """A backbone whose tokens are the means of their patches."""

    patch, dim = 14, 3

    def __call__(self, images: torch.Tensor) -> Features:
        tokens = functional.avg_pool2d(images, 14)
        return Features(tokens, tokens.mean(dim=(2, 3)))

    def layers(self, images: torch.Tensor, names: list[str]) -> list[Features]:
        return [self(images) for _ in names]


@pytest.mark.parametrize("shift", [2, 7])
def test_each_token_is_about_the_middle_of_its_cell(shift: int) -> None:
    rows = torch.arange(56.0)[:, None].expand(56, 84)
    columns = 1000 * torch.arange(84.0)[None, :].expand(56, 84)
    images = (rows + columns).expand(1, 3, 56, 84)
    (found,) = shifted_layers(Means(), images, ["last"], shift)
    pitch = 14 // shift
    assert found.tokens.shape == (1, 3, 4 * shift, 6 * shift)
    assert found.cls.shape == (1, 3)
    middle = pitch * torch.arange(4 * shift) + (pitch - 1) / 2
    across = pitch * torch.arange(6 * shift) + (pitch - 1) / 2
    inner = slice(shift, -shift)  # mirrored edges have other means
    expected = middle[inner, None] + 1000 * across[None, inner]
    difference = found.tokens[0, 0, inner, inner] - expected
    assert difference.abs().max() <= 0.5 * 1001  # half a pixel each way, where the pitch is odd


def test_one_of_the_passes_is_that_of_the_backbone() -> None:
    backbone = random_backbone(find_backbone("tiny"), 0).eval()
    images = torch.randn(1, 3, 42, 56)
    with torch.inference_mode():
        (plain,) = shifted_layers(backbone, images, ["last"], 1)
        assert torch.equal(plain.tokens, backbone(images).tokens)
        finer = shifted_layers(backbone, images, ["1", "last"], 2)
    assert [layer.tokens.shape for layer in finer] == [(1, 64, 6, 8)] * 2


def test_a_finer_grid_is_a_feature_set_of_its_own(cells: Workspace) -> None:
    plain = run_extraction(plan_extraction(cells, CELLS, OPTIONS, Quiet()), Quiet()).feature_set
    job = plan_extraction(cells, CELLS, replace(OPTIONS, shift=2), Quiet())
    finer = run_extraction(job, Quiet()).feature_set
    rows, columns = plain.slices[0].grid
    assert finer.slices[0].grid == (2 * rows, 2 * columns)
    assert finer.tokens(0).shape == (2 * rows, 2 * columns, 64)
    assert "-shift2-" in finer.name
    again = job_of(cells, finer.folder, Quiet())
    assert (again.name, again.fingerprint) == (job.name, job.fingerprint)


@pytest.mark.parametrize("pixel_size", [None, 6.0])
def test_trained_scored_applied_and_measured(
    cells: Workspace, tmp_path: Path, pixel_size: float | None
) -> None:
    if pixel_size is not None:
        text = (
            (cells.root / "emcache.toml")
            .read_text()
            .replace("[datasets.cells]", "[datasets.cells]\nvoxel_size_nm = [30, 4, 4]")
        )
        (cells.root / "emcache.toml").write_text(text)
    protocol = Protocol(head="linear", learning_rate=0.01, max_epochs=1, tokens="shift:2")
    features = FeatureRequest(
        "tiny", "random:0", None if pixel_size else 70, pixel_size_nm=pixel_size
    )
    request = TrainingRequest(
        datasets=["cells"], features=features, protocol=protocol, precision="float32", device="cpu"
    )
    (record,) = train(cells, request, Quiet())
    (second,) = train(cells, replace(request, seeds=[1]), Quiet())
    assert record.config["feature_sets"] == second.config["feature_sets"]
    assert "tokens=shift:2" in record.config["protocol"]
    options = EvaluationOptions(device="cpu")
    again = evaluate_run(cells, record.id, ["cells:test"], options, Quiet())
    ours, theirs = (
        pl.read_parquet(item.file("slice_metrics.parquet")).select("slice_id", "class", "tp", "fp")
        for item in (record, again)
    )
    assert ours.equals(theirs)
    image = Path(str(load_dataset(cells, "cells").slices[0].image.path))
    voxel = (30.0, 4.0, 4.0) if pixel_size else None
    chosen = PredictionOptions(device="cpu", voxel_size_nm=voxel)
    files, _ = predict(cells, record.id, [image], tmp_path / "out", chosen, Quiet())
    assert files[0].mask.is_file()
    gaps = GapOptions(run=record.id, by_class=True, device="cpu")
    rows, _ = measure_gaps(cells, ["cells:train", "cells:test"], gaps, Quiet())
    assert np.isfinite(rows[0]["frechet"])


def test_shifts_that_cannot_be(cells: Workspace) -> None:
    with pytest.raises(UsageError, match="which 3 shifted passes do not divide"):
        plan_extraction(cells, CELLS, replace(OPTIONS, shift=3), Quiet())
    for text in ("shift:1", "shift", "shift:2.5", "fine"):
        with pytest.raises(UsageError, match="expected patch, or shift:N"):
            parse_shift(text)
    protocol = Protocol(tokens="shift:2")
    request = TrainingRequest(
        datasets=["cells"],
        regime="lora",
        features=FeatureRequest("tiny", "random:0", 70),
        protocol=protocol,
    )
    with pytest.raises(UsageError, match="a backbone is trained with one pass"):
        train(cells, request, Quiet())
