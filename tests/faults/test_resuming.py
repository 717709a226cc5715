"""A training that is interrupted goes on from its last checkpoint, to the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import emcache.training.checkpoints
import emcache.training.plan
from emcache.cache.find import FeatureRequest
from emcache.storage.records import Record, list_record_ids
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache.training.trainer import Trainer

TINY = FeatureRequest("tiny", "random:0", 28)
PROTOCOL = Protocol(max_epochs=4, learning_rate=1e-2)
LINEAR = dataclasses.replace(PROTOCOL, head="linear", max_epochs=7)
SAME = ("train_loss", "val_loss", "val_iou_fg")


class PulledPlug(BaseException):
    """Ends a training as a kill does, as far as the process's own clearing up goes."""


def train(cells: Workspace, listener, regime: str, seeds=(0, 1), deliver=None) -> list[Record]:
    protocol = PROTOCOL if regime == "frozen" else LINEAR
    options = {"seeds": list(seeds), "protocol": protocol}
    if regime == "frozen":
        return run_training(
            cells, TrainingRequest(datasets=["cells"], features=TINY, **options), listener, deliver
        )
    choice = FeatureRequest("tiny", "random:0", 28)
    return run_training(
        cells,
        TrainingRequest(datasets=["cells"], regime="lora", features=choice, **options),
        listener,
        deliver,
    )


def result(record: Record) -> tuple[object, ...]:
    epochs = pl.read_parquet(record.file("epochs.parquet")).select(SAME).rows()
    tensors = load_file(record.file("head.safetensors"))
    counts = pl.read_parquet(record.file("slice_metrics.parquet")).rows()
    facts = [record.config[name] for name in ("best_epoch", "epochs_run", "stopped_by", "seed")]
    return epochs, {name: t.numpy().tobytes() for name, t in tensors.items()}, counts, facts


@pytest.mark.parametrize("regime", ["frozen", "lora"])
@pytest.mark.parametrize(
    "layout",
    [torch.contiguous_format, pytest.param(torch.channels_last, marks=pytest.mark.slow)],
)
def test_to_the_same_bits(regime, layout, cells, listener, monkeypatch):
    monkeypatch.setattr(emcache.training.plan, "pick_layout", lambda *_: layout)
    monkeypatch.setattr(emcache.training.checkpoints, "_LEAST_PAUSE", 0)
    whole = list(map(result, train(cells, listener, regime)))
    before = list_record_ids(cells.runs)

    real = Trainer.train_epoch
    stops = (3, 7) if regime == "frozen" else (3, 9, 12)
    for stop in stops:
        calls = 0

        def epoch(self, steps, stop=stop):
            nonlocal calls
            calls += 1
            if calls == stop:
                raise PulledPlug
            return real(self, steps)

        monkeypatch.setattr(Trainer, "train_epoch", epoch)
        with pytest.raises(PulledPlug):
            train(cells, listener, regime)
        # What was trained is not trained again.
        monkeypatch.setattr(Trainer, "train_epoch", real)
        listener.lines.clear()
        records = train(cells, listener, regime)
        assert list(map(result, records)) == whole, stop
        seed, after = divmod(stop - 1, len(whole[0][0]))
        assert f"Training, seed {seed}: going on after epoch {after}." in listener.lines
        assert len([line for line in listener.lines if "is done" in line]) == seed
    made = set(list_record_ids(cells.runs)) - set(before)
    trained = [name for name in made if "train-" in name]
    assert len(trained) == 2 * len(stops)
    assert not [path for path in cells.runs.iterdir() if path.name.startswith(".training")]


def test_ctrl_c_says_what_is_kept(cells, listener, monkeypatch):
    monkeypatch.setattr(emcache.training.checkpoints, "_LEAST_PAUSE", 0)
    real, calls = Trainer.train_epoch, 0

    def epoch(self, steps):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return real(self, steps)

    monkeypatch.setattr(Trainer, "train_epoch", epoch)
    with pytest.raises(KeyboardInterrupt):
        train(cells, listener, "frozen")
    assert listener.lines[-1] == (
        "1 of 2 seeds are done, and seed 1 up to epoch 2; the same command goes on from there."
    )


@pytest.mark.parametrize("regime", ["frozen", "lora"])
def test_what_was_not_delivered_is_not_trained_again(regime, cells, listener):
    """A kill between the last record and the result that is shown leaves nothing to do twice."""

    def killed(records):
        trained.extend(records)
        raise PulledPlug

    trained: list[Record] = []
    with pytest.raises(PulledPlug):
        train(cells, listener, regime, deliver=killed)
    delivered: list[Record] = []
    again = train(cells, listener, regime, deliver=delivered.extend)
    assert [r.id for r in again] == [r.id for r in delivered] == [r.id for r in trained]
    assert len([name for name in list_record_ids(cells.runs) if "train-" in name]) == 2
    assert not [path for path in cells.runs.iterdir() if path.name.startswith(".training")]


def test_a_command_that_ended_trains_anew(cells, listener):
    first = train(cells, listener, "frozen")
    again = train(cells, listener, "frozen")
    assert {r.id for r in first}.isdisjoint(r.id for r in again)


def test_another_command_does_not_go_on_from_it(cells, listener, monkeypatch):
    monkeypatch.setattr(emcache.training.checkpoints, "_LEAST_PAUSE", 0)
    real = Trainer.train_epoch
    monkeypatch.setattr(Trainer, "train_epoch", lambda *_: (_ for _ in ()).throw(PulledPlug()))
    with pytest.raises(PulledPlug):
        train(cells, listener, "frozen")
    monkeypatch.setattr(Trainer, "train_epoch", real)
    other = dataclasses.replace(PROTOCOL, learning_rate=2e-2)
    options = {"seeds": [0], "protocol": other}
    run_training(cells, TrainingRequest(datasets=["cells"], features=TINY, **options), listener)
    assert not [line for line in listener.lines if "going on after" in line]


def test_checkpoints_cost_little(tmp_path: Path, monkeypatch):
    """Where writing takes long against an epoch, most epochs go by without."""
    from emcache.training.checkpoints import CheckpointFolder, Progress

    clock = [0.0]
    monkeypatch.setattr(emcache.training.checkpoints.time, "monotonic", lambda: clock[0])
    folder, saved = CheckpointFolder(tmp_path / "c"), []

    def progress(epoch: int) -> Progress:
        clock[0] += 1.0
        saved.append(epoch)
        return Progress({"a": torch.zeros(1)}, {"epoch": epoch})

    for epoch in range(1, 61):
        clock[0] += 1.0
        folder.after_epoch(lambda epoch=epoch: progress(epoch))
    assert saved == [1, 21, 41]
