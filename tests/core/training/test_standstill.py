"""A training that is stuck says so, and one that is slow does not."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import emcache.training.plan
from emcache.cache.find import FeatureRequest
from emcache.data.register import add_dataset
from emcache.models.heads import Head
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.counts import STANDSTILL_EPOCHS, stands_still
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

SAID = "the loss has not moved from epoch 2 to epoch 5"

# Training and validation losses of the first epochs, measured on pretrained tokens of VNC.
STUCK = {
    "foreground everywhere": (
        [0.8964, 0.9502, 0.9509, 0.9504, 0.9511],
        [0.9432, 0.9432, 0.9432, 0.9432, 0.9432],
    ),
    "background everywhere": (
        [0.6120, 0.5129, 0.5135, 0.5134, 0.5132],
        [0.5144, 0.5156, 0.5156, 0.5156, 0.5156],
    ),
}
SLOW = {
    "one convolution at 5e-5": (
        [0.5083, 0.5062, 0.5046, 0.5041, 0.5036],
        [0.5088, 0.5061, 0.5046, 0.5040, 0.5036],
    ),
    "the linear head at 5e-5": (
        [0.6230, 0.6185, 0.6155, 0.6125, 0.6076],
        [0.6373, 0.6337, 0.6331, 0.6291, 0.6289],
    ),
    "the study's head at 5e-5": (
        [0.5851, 0.5707, 0.5370, 0.5027, 0.4728],
        [0.6150, 0.6017, 0.5767, 0.5282, 0.4656],
    ),
    "training moves, validation does not": (
        [0.30, 0.25, 0.22, 0.20, 0.19],
        [0.40, 0.4000, 0.4001, 0.4000, 0.4002],
    ),
}


@pytest.mark.parametrize("name", STUCK)
def test_stuck(name: str) -> None:
    assert stands_still(list(zip(*STUCK[name], strict=True)))


@pytest.mark.parametrize("name", SLOW)
def test_slow(name: str) -> None:
    assert not stands_still(list(zip(*SLOW[name], strict=True)))


class Convolution(Head):
    """A linear head without normalisation: at 1e-2 it comes to one answer everywhere."""

    def __init__(self, dim: int, classes: int = 2) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(dim, classes, 1)

    def logits(self, tokens: Tensor) -> Tensor:
        return self.classifier(tokens)


def build_bare(kind: str, dim: int, seed: int, classes: int, *_: object) -> Head:
    torch.manual_seed(seed)
    return Convolution(dim, classes)


@pytest.mark.real
@pytest.mark.weights
def test_on_tokens_of_a_pretrained_backbone(
    workspace: Workspace,
    few_vnc_root: Path,
    pretrained_file: Path,
    listener,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_dataset(workspace, "vnc", "vnc", few_vnc_root, {}, Quiet())
    request = FeatureRequest("dinov2-small", str(pretrained_file), 266)
    protocol = Protocol(head="linear", learning_rate=1e-2, max_epochs=7)
    run_training(
        workspace,
        TrainingRequest(datasets=["vnc"], features=request, seeds=[0], protocol=protocol),
        listener,
    )
    assert not [line for line in listener.lines if SAID in line]
    monkeypatch.setattr(emcache.training.plan, "build_head", build_bare)
    run_training(
        workspace,
        TrainingRequest(datasets=["vnc"], features=request, seeds=[1, 2], protocol=protocol),
        listener,
    )
    said = [line for line in listener.lines if SAID in line]
    assert [line.partition(":")[0] for line in said] == [
        "Training, seed 1",
        "Training, seed 2",
    ]
    assert re.search(
        r"\(training 0\.\d{4}, validation 0\.\d{4}\), .*"
        r"\(--learning-rate 0\.001 or 0\.1; now 0\.01\) or --head deconv, .*dataset audit",
        said[0],
    )


# So low that nothing can move; what is left is what the statistics of the batch norm do.
DEAD = Protocol(head="linear", learning_rate=1e-12, max_epochs=STANDSTILL_EPOCHS + 1)


@pytest.mark.parametrize("regime", ["frozen", "lora"])
def test_in_both_regimes(cells: Workspace, listener, regime: str) -> None:
    for epochs in (STANDSTILL_EPOCHS - 1, STANDSTILL_EPOCHS + 1):
        options = {"seeds": [0], "protocol": DEAD.with_changes({"max_epochs": epochs})}
        if regime == "frozen":
            run_training(
                cells,
                TrainingRequest(
                    datasets=["cells"], features=FeatureRequest("tiny", "random:0", 70), **options
                ),
                listener,
            )
        else:
            choice = FeatureRequest("tiny", "random:0", 70)
            run_training(
                cells,
                TrainingRequest(datasets=["cells"], regime="lora", features=choice, **options),
                listener,
            )
        said = [line for line in listener.lines if SAID in line]
        assert len(said) == (epochs >= STANDSTILL_EPOCHS)
    assert "now 1e-12" in said[0]
