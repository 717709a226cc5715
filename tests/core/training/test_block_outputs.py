"""Adapters on the last blocks, from the cached output of the block before them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from torch.utils.checkpoint import checkpoint

import emcache.models.backbones.base
from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import FeatureRequest
from emcache.data.register import add_dataset
from emcache.maintenance.repair import repair_feature_set, verify_feature_set
from emcache.models.backbones.base import BackboneModule
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.batches import Residency
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

LAST = Protocol(learning_rate=1e-3, max_epochs=2, lora_last_blocks=1)
FAMILIES = [
    FeatureRequest("tiny", "random:0", 70),
    FeatureRequest("timm:vit_small_patch16_dinov3", "random:0", 84),
    FeatureRequest("open_clip:ViT-S-32", "random:0", 84),
]


def train(
    workspace: Workspace, features: FeatureRequest = FAMILIES[0], **changes: object
) -> Record:
    chosen = {"protocol": LAST, "seeds": [0], "precision": "float32", **changes}
    request = TrainingRequest(datasets=["cells"], regime="lora", features=features, **chosen)
    (record,) = run_training(workspace, request, Quiet())
    return record


def losses(record: Record) -> np.ndarray:
    epochs = pl.read_parquet(record.file("epochs.parquet"))
    return epochs.select("train_loss", "val_loss").to_numpy()


def the_only_set(workspace: Workspace) -> FeatureSet:
    (folder,) = workspace.cache.glob("cells-*")
    return FeatureSet.open(folder)


@pytest.mark.parametrize("features", FAMILIES, ids=lambda f: str(f.backbone))
def test_losses_are_those_of_all_blocks_on_the_fly(
    cells: Workspace, features: FeatureRequest
) -> None:
    cached = train(cells, features)
    flying = train(cells, features, on_the_fly=True)
    np.testing.assert_allclose(losses(cached), losses(flying), rtol=0, atol=1e-5)
    assert cached.config["run_fingerprint"] == flying.config["run_fingerprint"]
    assert cached.config["feature_sets"] == [the_only_set(cells).name]
    assert flying.config["feature_sets"] == []
    assert (cached.config["cached_blocks"] > 0, flying.config["cached_blocks"]) == (True, 0)


def test_only_the_adapted_blocks_run_and_no_slice_is_decoded(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(cells)
    runs: list[torch.Size] = []
    attached: list[BackboneModule] = []
    go_on = BackboneModule.go_on

    def watched(
        backbone: BackboneModule, sequence: torch.Tensor, after: int, grid: tuple
    ) -> object:
        if backbone not in attached:
            attached.append(backbone)
            first = next(iter(backbone.blocks.children()))
            first.register_forward_hook(lambda *_: runs.append(sequence.shape))
        return go_on(backbone, sequence, after, grid)

    monkeypatch.setattr(BackboneModule, "go_on", watched)
    again = train(cells, seeds=[1])
    assert attached
    # Adapters are tried once on a picture, to see that they are called.
    assert len(runs) <= 1
    assert again.config["seed"] == 1


def test_what_saves_memory_changes_nothing(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(cells)
    again: list[object] = []

    def counted(block: object, *given: object, **options: object) -> object:
        again.append(block)
        return checkpoint(block, *given, **options)

    monkeypatch.setattr(emcache.models.backbones.base, "checkpoint", counted)
    saved = train(cells, accumulate=2, checkpoint=True, resident=Residency.DISK)
    np.testing.assert_allclose(losses(plain), losses(saved), rtol=0, atol=1e-4)
    assert again


def test_slices_of_several_sizes(workspace: Workspace, cells_root: Path) -> None:
    for path in sorted(cells_root.glob("*/*.png"))[::2]:
        Image.open(path).crop((0, 0, 84, 56)).save(path)
    options = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "cells", "folder", cells_root, options, Quiet())
    cached, flying = (train(workspace, on_the_fly=flag) for flag in (False, True))
    assert {item.grid for item in the_only_set(workspace).slices} == {(5, 5), (3, 5)}
    np.testing.assert_allclose(losses(cached), losses(flying), rtol=0, atol=1e-5)


def test_a_head_that_takes_the_slice_too_needs_all_blocks(cells: Workspace) -> None:
    record = train(cells, protocol=LAST.with_changes({"head": "deconv-skip"}))
    assert record.config["cached_blocks"] == 0


def test_all_blocks_leave_nothing_to_cache(cells: Workspace) -> None:
    record = train(cells, protocol=LAST.with_changes({"lora_last_blocks": 2}))
    assert record.config["cached_blocks"] == 0
    assert not list(cells.cache.glob("cells-*"))


def test_the_output_of_a_block_is_repaired(cells: Workspace) -> None:
    first = train(cells)
    before = the_only_set(cells)
    prefix, tokens = before.prefix(), before.tokens(1)
    assert prefix.shape == (len(before), 1, 64)
    assert tokens.dtype == np.float32
    (shard,) = before.folder.glob("grids/*/tokens/c/0/0/0/0")
    shard.write_bytes(shard.read_bytes()[:-9] + bytes(9))
    damages = verify_feature_set(before.folder)
    assert repair_feature_set(cells, before.name, damages, Quiet()).repaired
    after = the_only_set(cells)
    np.testing.assert_array_equal(after.prefix(), prefix)
    np.testing.assert_array_equal(after.tokens(1), tokens)
    np.testing.assert_array_equal(losses(train(cells)), losses(first))
