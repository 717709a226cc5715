from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from emcache.cache.find import FeatureRequest
from emcache.data.register import add_dataset
from emcache.errors import AdapterError, TrainingError, UsageError
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import find_backbone
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import Model, TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache.training.trainer import Trainer

LINEAR = Protocol(head="linear", learning_rate=1e-3, max_epochs=2)
TINY = FeatureRequest("tiny", "random:0", 70)


def options(**changes: object) -> dict[str, object]:
    return {"seeds": [0], "protocol": LINEAR, **changes}


def train(
    workspace: Workspace,
    choice: FeatureRequest = TINY,
    names: tuple[str, ...] = ("cells",),
    **changes: object,
) -> Record:
    (record,) = run_training(
        workspace,
        TrainingRequest(
            datasets=names,
            regime="lora",
            features=choice,
            **options(**changes),
        ),
        Quiet(),
    )
    return record


class Watch:
    """Keeps the trained model and the loss of every step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models: list[Model] = []
        self.losses: list[float] = []
        saved, stepped = Model.save, Trainer.step

        def save(model, draft):
            self.models.append(model)
            saved(model, draft)

        def step(trainer, batches):
            loss = stepped(trainer, batches)
            self.losses.append(float(loss))
            return loss

        monkeypatch.setattr(Model, "save", save)
        monkeypatch.setattr(Trainer, "step", step)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


FAMILIES = [
    TINY,
    FeatureRequest("timm:vit_small_patch16_dinov3", "random:0", 84),
    FeatureRequest("open_clip:ViT-S-32", "random:0", 84),
]


def check_only_adapter_and_head_changed(
    workspace: Workspace, dataset: str, choice: FeatureRequest, watch: Watch
) -> None:
    record = train(workspace, choice, names=(dataset,))
    (model,) = watch.models
    start = random_backbone(find_backbone(choice.backbone), 0)
    start.make_adaptable()
    before = start.model.state_dict()
    after = {
        name.removeprefix("backbone.model.").replace(".base_layer", ""): tensor
        for name, tensor in model.module.state_dict().items()
        if name.startswith("backbone.") and "lora_" not in name
    }
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    adapter = load_file(record.file("adapter/adapter_model.safetensors"))
    assert all(tensor.abs().max() > 0 for name, tensor in adapter.items())
    assert PeftModel.from_pretrained(start.model, str(record.folder / "adapter"))

    lora_loss = watch.losses[0]
    watch.losses.clear()
    request = FeatureRequest(choice.backbone, choice.weights, choice.longest_edge, "float32")
    run_training(
        workspace, TrainingRequest(datasets=[dataset], features=request, **options()), Quiet()
    )
    assert lora_loss == pytest.approx(watch.losses[0], abs=1e-5)


@pytest.mark.parametrize("choice", FAMILIES, ids=lambda choice: choice.backbone)
def test_only_adapter_and_head_change_and_the_first_loss_is_the_frozen_one(
    cells: Workspace, choice: FeatureRequest, watch: Watch
) -> None:
    check_only_adapter_and_head_changed(cells, "cells", choice, watch)


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [TINY.backbone, *(pytest.param(f.backbone, marks=pytest.mark.slow) for f in FAMILIES[1:])],
)
def test_the_same_on_real_slices_at_266_px(
    workspace: Workspace, few_vnc_root: Path, name: str, watch: Watch
) -> None:
    add_dataset(workspace, "vnc", "vnc", few_vnc_root, {}, Quiet())
    choice = FeatureRequest(name, "random:0", 266)
    check_only_adapter_and_head_changed(workspace, "vnc", choice, watch)


def test_the_record_lists_adapted_layers_and_trained_counts(cells: Workspace) -> None:
    config = train(cells).config
    assert config["regime"] == "lora"
    assert config["adapted_modules"] == [
        f"blocks.{block}.attn.{layer}" for block in (0, 1) for layer in ("qkv", "proj")
    ]
    assert config["adapter_parameters"] == 2 * 6 * 16 * 64
    assert config["head_parameters"] == 4 * 64 + 2
    assert config["trainable_parameters"] == 2 * 6 * 16 * 64 + 4 * 64 + 2
    assert config["feature_sets"] == []
    assert not list(cells.cache.glob("cells-*")), "nothing is read from the cache, or written"


def test_gradients_and_losses_do_not_depend_on_what_saves_memory(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients: list[list[torch.Tensor]] = []
    stepped = Trainer.step

    def step(trainer, batches):
        loss = stepped(trainer, batches)
        trained = [p.grad for p in trainer.model.parameters() if p.requires_grad]
        gradients.append([gradient.clone() for gradient in trained])
        return loss

    monkeypatch.setattr(Trainer, "step", step)
    plain, saved = (
        train(cells, protocol=Protocol(learning_rate=1e-3, max_epochs=2), **savings)
        for savings in ({}, {"accumulate": 2, "checkpoint": True})
    )
    # The first step starts from the same weights; later ones from weights that rounding has moved.
    steps = len(gradients) // 2
    for one, other in zip(gradients[0], gradients[steps], strict=True):
        # Sums of terms a hundred times their size: rounding is 1 % of them. A part without a
        # gradient would be as large as the gradient itself.
        torch.testing.assert_close(one, other, rtol=0, atol=0.05 * float(one.abs().max()))
    losses = [pl.read_parquet(r.file("epochs.parquet"))["val_loss"] for r in (plain, saved)]
    # Adam divides by a gradient's size, so rounding near zero grows to 2e-5 on some processors.
    np.testing.assert_allclose(*losses, atol=1e-4)
    assert plain.config["run_fingerprint"] == saved.config["run_fingerprint"]
    assert saved.config["accumulate"] == 2


def test_same_seed_same_adapter(cells: Workspace) -> None:
    one, again = (
        load_file(train(cells).file("adapter/adapter_model.safetensors")) for _ in range(2)
    )
    (other,) = (load_file(train(cells, seeds=[1]).file("adapter/adapter_model.safetensors")),)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_changed_rank_alpha_and_targets_show_in_the_protocol(cells: Workspace) -> None:
    changed = LINEAR.with_changes(
        {"lora_rank": 2, "lora_alpha": 4.0, "lora_targets": "attn.qkv+mlp.fc1"}
    )
    config = train(cells, protocol=changed).config
    assert config["protocol"].endswith(
        "lora_rank=2, lora_alpha=4.0, lora_targets=attn.qkv+mlp.fc1]"
    )
    assert config["adapted_modules"][1] == "blocks.0.mlp.fc1"


def test_what_cannot_be_trained(cells: Workspace) -> None:
    with pytest.raises(AdapterError, match="no block of tiny has a linear layer 'qkv'"):
        train(cells, protocol=LINEAR.with_changes({"lora_targets": "qkv"}))
    with pytest.raises(UsageError, match="accumulate 0"):
        train(cells, accumulate=0)
    with pytest.raises(TrainingError, match="grid of one"):
        train(cells, FeatureRequest("tiny", "random:0", 14), protocol=Protocol())
    with pytest.raises(UsageError, match="lora_rank cannot be 0"):
        Protocol(lora_rank=0)


def test_the_base_never_moves_by_rounding(cells: Workspace, watch: Watch) -> None:
    """PEFT's own wrapper of nn.MultiheadAttention merges and unmerges at every step."""
    choice = FeatureRequest("open_clip:ViT-S-32", "random:0", 84)
    train(cells, choice, protocol=LINEAR.with_changes({"max_epochs": 5}))
    (model,) = watch.models
    start = random_backbone(find_backbone(choice.backbone), 0)
    weight = start.model.transformer.resblocks[0].attn.in_proj_weight
    block = model.module.backbone.model.transformer.resblocks[0]
    assert torch.equal(block.attn.qkv.base_layer.weight, weight)
