"""A backbone that is trained as a whole."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emcache.cache.find import FeatureRequest
from emcache.errors import AdapterError, RecordError, WeightsError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import find_backbone
from emcache.models.tuned import find_tuned, load_tuned
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache.training.trainer import Trainer

LINEAR = Protocol(head="linear", learning_rate=1e-2, max_epochs=1, backbone_learning_rate=1e-4)
FAMILIES = [
    FeatureRequest("tiny", "random:0", 70),
    FeatureRequest("timm:vit_small_patch16_dinov3", "random:0", 84),
    FeatureRequest("open_clip:ViT-S-32", "random:0", 84),
]


def train(workspace: Workspace, choice: FeatureRequest = FAMILIES[0], **changes: object) -> Record:
    options = {"protocol": LINEAR, "regime": "full", "seeds": [0], "features": choice, **changes}
    (record,) = run_training(workspace, TrainingRequest(datasets=["cells"], **options), Quiet())
    return record


def first_step(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[dict]]:
    """The loss of the first step, and what it changed, by the names of the parameters."""
    losses: list[float] = []
    moves: list[dict] = []
    stepped = Trainer.step

    def step(trainer, batches):
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        losses.append(float(stepped(trainer, batches)))
        moves.append(
            {
                n: float((p.detach() - before[n]).abs().max())
                for n, p in trainer.model.named_parameters()
                if p.grad is not None and p.grad.abs().max() > 1e-6
            }
        )
        return torch.tensor(losses[-1])

    monkeypatch.setattr(Trainer, "step", step)
    return losses, moves


@pytest.mark.parametrize("choice", FAMILIES, ids=lambda choice: choice.backbone)
def test_it_starts_as_a_frozen_backbone_and_everything_that_tokens_need_learns(
    cells: Workspace, choice: FeatureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, moves = first_step(monkeypatch)
    train(cells, choice)
    # The first step of Adam is as long as its learning rate, but for weight decay.
    heads = [move for name, move in moves[0].items() if name.startswith("head.")]
    backbones = [move for name, move in moves[0].items() if name.startswith("backbone.")]
    assert heads == pytest.approx([1e-2] * len(heads), rel=0.05)
    assert backbones == pytest.approx([1e-4] * len(backbones), rel=0.05)
    assert len(backbones) > 10

    features = FeatureRequest(choice.backbone, choice.weights, choice.longest_edge, "float32")
    first = losses[0]
    losses.clear()
    train(cells, features, regime="frozen")
    assert first == pytest.approx(losses[0], abs=1e-5)


def test_the_record_holds_the_backbone_and_says_how_it_was_trained(cells: Workspace) -> None:
    record = train(cells)
    start = random_backbone(find_backbone("tiny"), 0)
    count = sum(p.numel() for p in start.parameters())
    assert record.config["regime"] == "full"
    assert record.config["backbone_parameters"] == count
    assert record.config["trainable_parameters"] == count + record.config["head_parameters"]
    assert record.config["protocol"] == (
        "paper[head=bn-linear, learning_rate=0.01, max_epochs=1, backbone_learning_rate=0.0001]"
    )
    kept = load_file(record.file("backbone/backbone.safetensors"))
    before = start.model.state_dict()
    assert kept.keys() == before.keys()
    assert not any(torch.equal(kept[name], before[name]) for name in kept if "weight" in name)
    load_tuned(start, find_tuned(record.folder, record.id))
    assert all(torch.equal(kept[name], tensor) for name, tensor in start.model.state_dict().items())


def test_a_killed_training_goes_on_to_the_same_weights(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = LINEAR.with_changes({"max_epochs": 3})
    whole = load_file(train(cells, protocol=longer).file("backbone/backbone.safetensors"))
    epochs = 0
    trained = Trainer.train_epoch

    def train_epoch(trainer, steps):
        nonlocal epochs
        epochs += 1
        if epochs == 3:
            raise KeyboardInterrupt
        return trained(trainer, steps)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", train_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(cells, protocol=longer)
    record = train(cells, protocol=longer)
    assert epochs == 3
    resumed = load_file(record.file("backbone/backbone.safetensors"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_damaged_weights_are_refused(cells: Workspace) -> None:
    record = train(cells)
    path = Path(record.file("backbone/backbone.safetensors"))
    backbone = random_backbone(find_backbone("timm:vit_tiny_patch16_224"), 0)
    with pytest.raises(WeightsError, match=r"are not those of timm:vit_tiny_patch16_224; restore"):
        load_tuned(backbone, find_tuned(record.folder, record.id))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RecordError, match=r"is damaged: backbone/backbone.safetensors"):
        evaluate_run(cells, record.id, ["cells:test"], EvaluationOptions(), Quiet())
    tuned = find_tuned(record.folder, record.id)
    with pytest.raises(WeightsError):
        load_tuned(random_backbone(find_backbone("tiny"), 0), tuned)
    path.unlink()
    with pytest.raises(AdapterError, match=r"holds no backbone .*: restore the run's folder"):
        find_tuned(record.folder, record.id)


def test_what_saves_memory_changes_rounding_alone(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients: list[list[torch.Tensor]] = []
    stepped = Trainer.step

    def step(trainer, batches):
        loss = stepped(trainer, batches)
        gradients.append([p.grad.clone() for p in trainer.model.parameters() if p.grad is not None])
        return loss

    monkeypatch.setattr(Trainer, "step", step)
    plain = train(cells)
    steps = len(gradients)
    saved = train(cells, accumulate=2, checkpoint=True)
    for one, other in zip(gradients[0], gradients[steps], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.01 * float(one.abs().max()) + 1e-8)
    assert plain.config["run_fingerprint"] == saved.config["run_fingerprint"]
