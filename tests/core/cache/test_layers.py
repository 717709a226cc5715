"""Tokens of several layers: chosen, made in one pass, read one by one or together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import emcache.cache.recipe
import emcache.cache.writer
from emcache.cache.extract import run_extraction, run_extractions
from emcache.cache.feature_set import list_feature_sets
from emcache.cache.find import FeatureRequest
from emcache.cache.layers import find_layers
from emcache.cache.plan import ExtractOptions, plan_extraction, plan_layers
from emcache.data.dataset import Selection, load_dataset
from emcache.errors import UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.evaluation.trained_run import find_run
from emcache.gap.outside import measure_familiarity
from emcache.gap.run import GapOptions, measure_gaps
from emcache.models.backbones.base import BackboneModule, random_backbone
from emcache.models.backbones.registry import find_backbone
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train

OPTIONS = ExtractOptions("tiny", "random:0", 56, precision="float32", device="cpu", batch=3)
CELLS = Selection("cells", None)


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("last", ["last"]),
        ("last1", ["last"]),
        ("last4", ["9", "10", "11", "last"]),
        ("3,6,9,12", ["3", "6", "9", "last"]),
        ("3+6", ["3", "6"]),
        ("12", ["last"]),
    ],
)
def test_layers_that_are_meant(text: str, layers: list[str]) -> None:
    assert list(find_layers(text, find_backbone("dinov2-small"))) == layers


@pytest.mark.parametrize("text", ["last13", "0", "13", "6,3", "3,3", "3,", "first", "last0", ""])
def test_layers_that_are_not_there(text: str) -> None:
    with pytest.raises(UsageError, match="layers cannot be"):
        find_layers(text, find_backbone("dinov2-small"))


@pytest.mark.parametrize(
    "name", ["tiny", "dinov2-small", "dinov3-small", "timm:vit_tiny_patch16_224"]
)
def test_layers_are_those_that_timm_gives(name: str) -> None:
    backbone = random_backbone(find_backbone(name), 0).eval()
    side = 3 * backbone.patch
    images = torch.randn(2, 3, side, side + backbone.patch)
    with torch.inference_mode():
        one, last = backbone.layers(images, ["1", "last"])
        _, (theirs,) = backbone.model.forward_intermediates(images, indices=[0], norm=True)
        plain = backbone(images)
    torch.testing.assert_close(one.tokens, theirs)
    assert one.tokens.shape == plain.tokens.shape
    assert torch.equal(last.tokens, plain.tokens)
    assert torch.equal(last.cls, plain.cls)
    assert not backbone.model.blocks[0]._forward_hooks


def test_layers_of_open_clip() -> None:
    from open_clip.transformer import VisionTransformer

    backbone = random_backbone(find_backbone("open_clip:ViT-B-32"), 0).eval()
    assert isinstance(backbone.model, VisionTransformer)
    side = backbone.model.image_size[0]
    images = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        six, last = backbone.layers(images, ["6", "last"])
        theirs = backbone.model.forward_intermediates(
            images, indices=[5, 11], normalize_intermediates=True, output_extra_tokens=True
        )
    for ours, tokens, prefix in zip(
        (six, last),
        theirs["image_intermediates"],
        theirs["image_intermediates_prefix"],
        strict=True,
    ):
        torch.testing.assert_close(ours.tokens, tokens)
        torch.testing.assert_close(ours.cls, prefix[:, 0])


def test_one_pass_makes_every_layer(cells: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run_extraction(plan_extraction(cells, CELLS, OPTIONS, Quiet()), Quiet()).feature_set
    tokens = [plain.tokens(place) for place in range(len(plain.slices))]
    passes: list[int] = []
    real = BackboneModule.layers

    def layers(self, images, names):
        passes.append(len(images))
        return real(self, images, names)

    monkeypatch.setattr(BackboneModule, "layers", layers)
    jobs = plan_layers(cells, CELLS, OPTIONS, "1,2", Quiet())
    first, last = run_extractions(jobs, Quiet())
    # The last layer is the feature set that was there.
    assert (last.computed, last.feature_set.name) == (0, plain.name)
    assert first.computed == len(plain.slices) == sum(passes)
    assert first.feature_set.name.startswith("cells-tiny-layer1-")
    assert first.feature_set.description["layer"] == "1"
    assert not np.array_equal(first.feature_set.tokens(0), tokens[0])


def test_both_layers_at_once_equal_each_alone(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[int] = []
    real = BackboneModule.layers

    def layers(self, pixels, names):
        images.append(len(pixels))
        return real(self, pixels, names)

    monkeypatch.setattr(BackboneModule, "layers", layers)
    both = run_extractions(plan_layers(cells, CELLS, OPTIONS, "last2", Quiet()), Quiet())
    count = len(both[0].feature_set.slices)
    assert sum(images) == count
    kept = [
        [item.feature_set.tokens(place) for place in range(count)]
        + [item.feature_set.pooled(), item.feature_set.cls()]
        for item in both
    ]
    for item in list_feature_sets(cells.cache):
        shutil.rmtree(item.folder)
    for values, job in zip(kept, plan_layers(cells, CELLS, OPTIONS, "last2", Quiet()), strict=True):
        alone = run_extraction(job, Quiet()).feature_set
        again = [alone.tokens(place) for place in range(count)] + [alone.pooled(), alone.cls()]
        for one, other in zip(values, again, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_kill_between_two_layers_loses_nothing(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emcache.cache.recipe, "_FEWEST_SLICES", 4)
    monkeypatch.setattr(emcache.cache.recipe, "_MOST_SLICES", 4)
    jobs = plan_layers(cells, CELLS, OPTIONS, "last2", Quiet())
    real = emcache.cache.writer.FeatureSetWriter.write
    written: list[str] = []

    def write(self, shard, content) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        real(self, shard, content)
        written.append("1" if "-layer1-" in self.folder.name else "last")

    monkeypatch.setattr(emcache.cache.writer.FeatureSetWriter, "write", write)
    with pytest.raises(KeyboardInterrupt):
        run_extractions(jobs, Quiet())
    assert written == ["1", "last", "1"]
    monkeypatch.setattr(emcache.cache.writer.FeatureSetWriter, "write", real)
    done = run_extractions(jobs, Quiet())
    tokens = [item.feature_set.tokens(7) for item in done]
    for item in list_feature_sets(cells.cache):
        shutil.rmtree(item.folder)
    for expected, job in zip(tokens, jobs, strict=True):
        np.testing.assert_array_equal(expected, run_extraction(job, Quiet()).feature_set.tokens(7))


def test_a_head_on_two_layers(cells: Workspace, tmp_path: Path) -> None:
    protocol = Protocol(head="linear", learning_rate=0.01, max_epochs=2, layers="1,2")
    assert protocol.label == "paper[head=bn-linear, learning_rate=0.01, max_epochs=2, layers=1+2]"
    features = FeatureRequest("tiny", "random:0", 70)
    request = TrainingRequest(
        datasets=["cells"], features=features, protocol=protocol, precision="float32", device="cpu"
    )
    (record,) = train(cells, request, Quiet())
    assert record.config["dim"] == 128
    assert record.config["recipe"]["layer"] == "1+last"
    sets = [item for item in list_feature_sets(cells.cache) if "70px" in item.name]
    assert sorted(record.config["feature_sets"]) == sorted(item.name for item in sets)
    options = EvaluationOptions(device="cpu", save_predictions=True)
    again = evaluate_run(cells, record.id, ["cells:test"], options, Quiet())
    ours, theirs = (
        pl.read_parquet(item.file("slice_metrics.parquet")).select("slice_id", "class", "tp", "fp")
        for item in (record, again)
    )
    assert ours.equals(theirs)
    # What predicts is what was scored, at the size of the training.
    slices = [item for item in load_dataset(cells, "cells").slices if item.split == "test"]
    files, _ = predict(
        cells,
        record.id,
        [Path(str(slices[0].image.path))],
        tmp_path / "out",
        PredictionOptions(device="cpu"),
        Quiet(),
    )
    assert files[0].mask.is_file()
    # What is measured is the last of the layers, whichever the run reads.
    rows, _ = measure_gaps(cells, ["cells:train", "cells:test"], GapOptions(run=record.id), Quiet())
    assert rows[0]["dim"] == 64
    found, _ = measure_familiarity(cells, record.id, ["cells:test"], Quiet())
    (reference,) = find_run(cells, record.id).references()
    assert len(reference.mean) == 64
    (last,) = (f for f in sets if f.description["layer"] == "last")
    place = [s.pixel_sha256 for s in last.slices].index(slices[0].pixel_sha256)
    direct = reference.distance(last.tokens(place)).tokens
    assert found[0]["distance"] == pytest.approx(direct, rel=1e-6)
    with pytest.raises(UsageError, match="a backbone is trained with its last layer alone"):
        train(
            cells,
            TrainingRequest(
                datasets=["cells"], regime="lora", features=features, protocol=protocol
            ),
            Quiet(),
        )
    with pytest.raises(UsageError, match="no backbone was named"):
        train(
            cells,
            TrainingRequest(
                datasets=["cells"], protocol=protocol, features=FeatureRequest(longest_edge=84)
            ),
            Quiet(),
        )
    with pytest.raises(UsageError, match="which has 2"):
        train(
            cells,
            TrainingRequest(
                datasets=["cells"], features=features, protocol=Protocol(layers="last3")
            ),
            Quiet(),
        )
