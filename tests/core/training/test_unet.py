"""A U-Net that is trained from scratch: crops, windows, turns, and the way of every run."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import emcache.training.checkpoints
from emcache.cache.find import FeatureRequest
from emcache.cache.inputs import standardise
from emcache.data.classes import IGNORED
from emcache.data.dataset import load_dataset
from emcache.errors import TrainingError, UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.evaluation.trained_run import find_run
from emcache.gap.sources import options_of_run
from emcache.models.unet import build_unet, window_size
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.augmentation import Augmentation
from emcache.training.batches import Batch
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import find_protocol
from emcache.training.run import train as run_training
from emcache.training.trainer import Trainer


def train(workspace: Workspace, edge: int = 70, **fields: object) -> Record:
    fields = {"max_epochs": 2, "crop": 48, **fields}
    request = TrainingRequest(
        datasets=["cells"],
        regime="supervised",
        features=FeatureRequest(longest_edge=edge),
        protocol=find_protocol("unet").with_changes(fields),
    )
    (record,) = run_training(workspace, request, Quiet())
    return record


@pytest.mark.parametrize("tta", [False, True])
def test_a_run_is_recorded_scored_again_and_predicts(
    cells: Workspace, tmp_path: Path, tta: bool
) -> None:
    run = train(cells, tta=tta)
    config = run.config
    assert run.kind == "train-unet"
    assert (config["regime"], config["backbone"], config["weights"]) == (
        "supervised",
        "none",
        "none",
    )
    assert config["protocol"] == f"unet[max_epochs=2, crop=48{', tta=True' if tta else ''}]"
    assert config["trainable_parameters"] == 6_495_321
    own = pl.read_parquet(run.file("slice_metrics.parquet"))
    evaluated = evaluate_run(cells, run.id, ["cells:test"], EvaluationOptions(), Quiet())
    assert pl.read_parquet(evaluated.file("slice_metrics.parquet")).equals(own)
    item = next(s for s in load_dataset(cells, "cells").labelled if s.split == "test")
    predict(cells, run.id, [item.image.path], tmp_path / "out", PredictionOptions(), Quiet())
    mask = np.asarray(Image.open(tmp_path / "out" / f"{item.image.path.stem}.png"))
    assert mask.shape == (item.height, item.width)


def test_it_learns(cells: Workspace) -> None:
    scores = [
        pl.read_parquet(train(cells, max_epochs=n).file("epochs.parquet"))["val_loss"][-1]
        for n in (1, 8)
    ]
    assert scores[1] < scores[0] - 0.05


def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(cells, max_epochs=3, learning_rate=2e-3)
    epochs = 0
    trained = Trainer.train_epoch

    def stopped(trainer, steps):
        nonlocal epochs
        epochs += 1
        if epochs == 2:
            raise KeyboardInterrupt
        return trained(trainer, steps)

    monkeypatch.setattr(Trainer, "train_epoch", stopped)
    # Else a checkpoint is kept only after some seconds.
    monkeypatch.setattr(emcache.training.checkpoints, "_LEAST_PAUSE", 0)
    (cells.runs / whole.id).rename(cells.runs.parent / "elsewhere")
    with pytest.raises(KeyboardInterrupt):
        train(cells, max_epochs=3, learning_rate=2e-3)
    again = train(cells, max_epochs=3, learning_rate=2e-3)
    losses = [
        pl.read_parquet(folder / "epochs.parquet")["val_loss"].to_list()
        for folder in (cells.runs.parent / "elsewhere", again.folder)
    ]
    assert losses[0] == losses[1]
    assert epochs == 4  # the first, the one that was stopped, and the two that were left


def test_crops_show_slice_and_mask_alike_and_follow_the_seed() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand((3, 1, 70, 90), generator=random)
    images[2] = 0
    masks = (images[:, 0] > 0.5).to(torch.uint8)
    masks[2] = IGNORED
    batch = Batch((0, 1, 2), images, masks)

    def made(kind: bool, seed: int) -> Batch:
        augmentation = Augmentation(50, changes=kind)
        generator = torch.Generator().manual_seed(seed)
        ((found,),) = augmentation.batches(iter([[batch]]), generator)
        return found

    found = made(False, 0)
    assert found.inputs.shape == (3, 1, 48, 48)
    assert torch.equal(found.masks[:2], (found.inputs[:2, 0] > 0.5).to(torch.uint8))
    assert (found.masks[2] == IGNORED).all()
    again, other, changed = made(False, 0), made(False, 1), made(True, 0)
    assert torch.equal(again.inputs, found.inputs)
    assert not torch.equal(other.inputs, found.inputs)
    assert changed.masks.unique().tolist() == [0, 1, IGNORED]
    assert not torch.equal(changed.inputs, found.inputs)
    assert torch.equal(batch.masks[:2], (images[:2, 0] > 0.5).to(torch.uint8))


def test_flips_and_turns_move_slice_and_mask_alike() -> None:
    """Where nothing changes the greys, what was above a threshold is marked still."""
    images = torch.zeros((40, 1, 64, 64))
    images[:, :, 8:40, 30:56] = 1
    batch = Batch(tuple(range(40)), images, images[:, 0].to(torch.uint8))
    augmentation = Augmentation(64, changes=True)
    ((found,),) = augmentation.batches(iter([[batch]]), torch.Generator().manual_seed(3))
    for image, mask in zip(found.inputs[:, 0], found.masks, strict=True):
        middle = (image.amin() + image.amax()) / 2
        agreement = ((image > middle) == (mask > 0)).float().mean()
        assert agreement > 0.93
    assert len({tuple(mask.flatten().tolist()) for mask in found.masks}) > 20


@pytest.mark.parametrize("size", [(70, 90), (32, 200), (130, 47)])
def test_it_predicts_slices_of_any_size(size: tuple[int, int]) -> None:
    network = build_unet(2, 0, 48, tta=False).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 1, *size), size).shape == (2, 2, *size)


def test_one_window_is_the_network_itself() -> None:
    network = build_unet(2, 0, 64, tta=False).eval()
    values = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(network(values, (64, 64)), network.network(values), atol=1e-5)


def test_a_turned_slice_gets_the_turned_map() -> None:
    network = build_unet(2, 0, 64, tta=True).eval()
    plain = build_unet(2, 0, 64, tta=False).eval()
    values = torch.rand(1, 1, 64, 64)
    turned = torch.rot90(values, 1, (2, 3)).flip(3)

    def map_of(model: torch.nn.Module, given: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model(given, (64, 64))

    expected = torch.rot90(map_of(network, values), 1, (2, 3)).flip(3)
    assert torch.allclose(map_of(network, turned), expected, atol=1e-5)
    unequal = torch.rot90(map_of(plain, values), 1, (2, 3)).flip(3)
    assert not torch.allclose(map_of(plain, turned), unequal, atol=1e-3)


def test_the_same_seed_gives_the_same_network() -> None:
    first, again, other = (build_unet(2, seed, 64, tta=False) for seed in (0, 0, 1))
    weights = [next(network.parameters()) for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert [window_size(edge) for edge in (20, 32, 47, 48, 266)] == [32, 32, 32, 48, 256]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layers": "last4"}, "layers is last4; leave it out"),
        ({"tokens": "shift:2"}, "tokens is shift:2; leave it out"),
        ({"align": "standardise"}, "align is standardise; leave it out"),
        ({"penalty": "mmd"}, "makes several datasets alike"),
        ({"head": "knn"}, "the head knn is not one of this regime, which has unet"),
    ],
)
def test_what_speaks_of_tokens_is_refused(cells: Workspace, fields: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        train(cells, **fields)


def test_slices_that_are_too_small_are_refused(cells: Workspace) -> None:
    with pytest.raises((UsageError, TrainingError), match="--longest-edge"):
        train(cells, 28)


def test_a_run_has_no_tokens_to_measure(cells: Workspace) -> None:
    run = find_run(cells, train(cells, max_epochs=1).id)
    with pytest.raises(UsageError, match="has no backbone, and so no tokens"):
        options_of_run(run, None, "cpu")


def test_slices_are_standardised_each_by_itself() -> None:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(20, 120, (2, 30, 40), generator=random, dtype=torch.uint8)
    pixels[1] = pixels[0] * 2
    made = standardise(pixels)
    assert made.shape == (2, 1, 30, 40)
    assert torch.allclose(made.mean(dim=(2, 3)), torch.zeros(2, 1), atol=1e-5)
    assert torch.allclose(made.std(dim=(2, 3), correction=0), torch.ones(2, 1), atol=1e-5)
    assert torch.allclose(made[0], made[1], atol=1e-5)
    plain = standardise(torch.full((1, 8, 8), 77, dtype=torch.uint8))
    assert torch.equal(plain, torch.zeros(1, 1, 8, 8))


def test_whole_slices_of_any_size_are_trained_on() -> None:
    network = build_unet(2, 0, 64, tta=False).train()
    slices = torch.randn(2, 1, 70, 84)
    assert network.logits(slices).shape == (2, 2, 70, 84)
    # Those that it can halve as often as it must are taken as they are.
    even = torch.randn(2, 1, 64, 80)
    assert network.logits(even).equal(network.network(even))
