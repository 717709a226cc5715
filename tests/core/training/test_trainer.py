from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from PIL import Image

import emcache.training.trainer
from emcache.cache.extract import run_extraction
from emcache.cache.feature_set import FeatureSet
from emcache.cache.inputs import normalise
from emcache.cache.labels import LabelSet, ensure_labels
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.classes import ClassRule
from emcache.data.dataset import Selection
from emcache.data.images import read_image
from emcache.data.resize import resize_image
from emcache.errors import UsageError
from emcache.models.arithmetic import Precision
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import TINY
from emcache.models.heads import build_head
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.batches import Batch, LabelledFeatures, Residency, TokenReader, open_examples
from emcache.training.checkpoints import Progress
from emcache.training.counts import Counts
from emcache.training.protocol import Protocol, read_protocol
from emcache.training.sampling import split_validation
from emcache.training.trainer import Trainer, TrainingOrder, fit

CPU = torch.device("cpu")
POSITIONS = list(range(10))


@pytest.fixture
def features(cells: Workspace) -> tuple[Job, FeatureSet, LabelSet]:
    options = ExtractOptions(
        "tiny", "random:0", longest_edge=70, dtype="float32", precision="float32"
    )
    job = plan_extraction(cells, Selection.parse("cells"), options, Quiet())
    feature_set = run_extraction(job, Quiet()).feature_set
    return job, feature_set, ensure_labels(feature_set, job.slices, ClassRule(), Quiet())


def trainer(protocol: Protocol, seed: int = 0, dim: int = 64) -> Trainer:
    return Trainer(build_head(protocol.head, dim, seed), protocol, CPU, Precision.FLOAT32)


class OnTheFly:
    """The reference's way: decode, resize and run the backbone for every batch of every epoch."""

    def __init__(self, job: Job, labels: LabelSet) -> None:
        self._job, self._labels = job, labels
        self._backbone = random_backbone(TINY, 0).eval()

    def steps(self, order: Sequence[Sequence[int]]) -> Iterator[list[Batch]]:
        for positions in order:
            images = [
                resize_image(read_image(self._job.slices[p].image), (70, 70)) for p in positions
            ]
            with torch.no_grad():
                tokens = self._backbone(normalise(torch.from_numpy(np.stack(images)))).tokens
            masks = np.stack([self._labels.mask(p) for p in positions])
            yield [Batch(tuple(positions), tokens, torch.from_numpy(masks))]


def test_cached_training_equals_on_the_fly_training(
    features: tuple[Job, FeatureSet, LabelSet],
) -> None:
    job, feature_set, labels = features
    cached, _ = open_examples(
        TokenReader([LabelledFeatures(feature_set, labels)]), CPU, Residency.RAM, POSITIONS
    )
    order = [[0, 7], [3, 1], [5, 2]]
    protocol = Protocol()
    losses = [
        trainer(protocol).train_epoch(examples.steps(order))
        for examples in (cached, OnTheFly(job, labels))
    ]
    assert len(losses[0]) == 3
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("residency", [Residency.RAM, Residency.DISK, Residency.DEVICE])
def test_residency_changes_nothing(
    features: tuple[Job, FeatureSet, LabelSet], residency: Residency
) -> None:
    _, feature_set, labels = features
    order = [[p, (p * 3 + 1) % 10] for p in range(10)]
    expected, _ = open_examples(
        TokenReader([LabelledFeatures(feature_set, labels)]), CPU, Residency.RAM, POSITIONS
    )
    examples, chosen = open_examples(
        TokenReader([LabelledFeatures(feature_set, labels)]), CPU, residency, POSITIONS
    )
    assert chosen is residency
    for (ours,), (theirs,) in zip(examples.steps(order), expected.steps(order), strict=True):
        assert ours.positions == theirs.positions
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.masks, theirs.masks)
    np.testing.assert_array_equal(
        next(iter(examples.steps([[4]])))[0].inputs[0].permute(1, 2, 0), feature_set.tokens(4)
    )


def test_one_step_is_adamw_on_monais_dice(features: tuple[Job, FeatureSet, LabelSet]) -> None:
    _, feature_set, labels = features
    examples, _ = open_examples(
        TokenReader([LabelledFeatures(feature_set, labels)]), CPU, Residency.RAM, POSITIONS
    )
    (batch,) = next(iter(examples.steps([[0, 1]])))
    ours, theirs = trainer(Protocol()), build_head("deconv", 64, 0)
    ours.model.train()
    loss = ours.step([batch])

    optimizer = torch.optim.AdamW(theirs.parameters(), lr=5e-5, weight_decay=1e-4)
    criterion = DiceLoss(softmax=True, to_onehot_y=True, include_background=True)
    expected = criterion(theirs.train()(batch.inputs, (70, 70)), batch.masks[:, None].long())
    expected.backward()
    optimizer.step()
    assert float(loss) == pytest.approx(expected.item(), abs=1e-6)
    for p, q in zip(ours.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


class NoKeeper:
    """Keeps nothing."""

    def load(self) -> Progress | None:
        return None

    def after_epoch(self, progress: Callable[[], Progress]) -> None:
        pass


def run(features: tuple[Job, FeatureSet, LabelSet], protocol: Protocol, seed: int = 0):
    _, feature_set, labels = features
    examples, _ = open_examples(
        TokenReader([LabelledFeatures(feature_set, labels)]), CPU, Residency.RAM, POSITIONS
    )
    train, val = split_validation([POSITIONS], protocol)
    worker = trainer(protocol, seed)
    return (
        worker,
        examples,
        val,
        fit(worker, examples, TrainingOrder(train, val), seed, Quiet(), NoKeeper()),
    )


LINEAR = Protocol(head="linear", learning_rate=0.05, max_epochs=4)


def test_same_seed_same_bits(features: tuple[Job, FeatureSet, LabelSet]) -> None:
    first, again, other = (run(features, LINEAR, seed)[3] for seed in (0, 0, 1))
    assert [e.train_loss for e in first.epochs] == [e.train_loss for e in again.epochs]
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)
    assert [e.train_loss for e in first.epochs] != [e.train_loss for e in other.epochs]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation losses that go down, up, down and up again."""
    losses = iter([0.9, 0.5, 0.7, 0.3, 0.4, 0.8, 0.35, 0.3, 0.2])
    monkeypatch.setattr(emcache.training.trainer, "validate", lambda *_: (next(losses), 0.0))


def test_the_best_epoch_is_kept(
    features: tuple[Job, FeatureSet, LabelSet], scripted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(features, Protocol(head="linear", max_epochs=7))[3]
    assert (result.best_epoch, result.best_val_loss, result.stopped_by) == (4, 0.3, "max_epochs")
    monkeypatch.undo()
    # Four epochs of the same seed end with the weights that the longer run kept.
    worker = run(features, Protocol(head="linear", max_epochs=4))[0]
    for name, tensor in worker.model.state_dict().items():
        assert torch.equal(tensor, result.state[name])


def test_stops_after_patience_epochs_without_a_lower_loss(
    features: tuple[Job, FeatureSet, LabelSet], scripted: None
) -> None:
    result = run(features, Protocol(head="linear", max_epochs=100, patience=4))[3]
    # An equal loss in epoch 8 is no better one.
    assert (result.best_epoch, len(result.epochs), result.stopped_by) == (4, 8, "patience")


def test_a_step_on_two_sizes_is_one_step_on_all_its_slices(
    cells: Workspace, cells_root: Path
) -> None:
    """With a batch norm that takes no statistics of its own from each batch."""
    for kind in ("images", "masks"):
        path = cells_root / kind / "3.png"
        Image.open(path).crop((0, 0, 84, 50)).save(path)
    options = ExtractOptions("tiny", "random:0", 70, "float32", "float32")
    job = plan_extraction(cells, Selection.parse("cells"), options, Quiet())
    feature_set = run_extraction(job, Quiet()).feature_set
    labels = ensure_labels(feature_set, job.slices, ClassRule(), Quiet())
    sources = TokenReader([LabelledFeatures(feature_set, labels)])
    examples, _ = open_examples(sources, CPU, Residency.RAM, POSITIONS)
    (batches,) = examples.steps([[1, 3, 2]])
    assert [batch.positions for batch in batches] == [(1, 2), (3,)]
    assert [tuple(batch.masks.shape[1:]) for batch in batches] == [(70, 70), (28, 70)]

    ours, theirs = trainer(LINEAR), trainer(LINEAR)
    for worker in (ours, theirs):
        worker.model.eval()
    loss = ours.step(batches)
    criterion = DiceLoss(softmax=True, to_onehot_y=True, include_background=True)
    each = [
        criterion(theirs.model(batch.inputs[i : i + 1], mask.shape), mask[None, None].long())
        for batch in batches
        for i, mask in enumerate(batch.masks)
    ]
    expected = torch.stack(each).mean()
    assert float(loss) == pytest.approx(expected.item(), abs=1e-6)
    expected.backward()
    for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4)


def test_counts_equal_numpy() -> None:
    random = np.random.default_rng(0)
    p, t = random.integers(0, 3, (2, 30, 40))
    counts = Counts.of(torch.from_numpy(p), torch.from_numpy(t.astype(np.uint8)))
    assert counts == Counts(
        int(((p > 0) & (t > 0)).sum()),
        int(((p > 0) & (t == 0)).sum()),
        int(((p == 0) & (t > 0)).sum()),
        int(((p == 0) & (t == 0)).sum()),
    )
    assert counts.iou == pytest.approx(((p > 0) & (t > 0)).sum() / ((p > 0) | (t > 0)).sum())


def test_the_label_names_every_changed_field() -> None:
    assert Protocol().label == "paper"
    changed = Protocol().with_changes({"max_epochs": 3, "head": "linear", "patience": None})
    assert changed.label == "paper[head=bn-linear, max_epochs=3]"
    assert read_protocol(changed.as_dict()) == changed
    # Records of earlier versions, whose linear head had no batch norm.
    with pytest.raises(UsageError, match="linear was a convolution without batch norm"):
        read_protocol({**changed.as_dict(), "head": "linear"})
    with pytest.raises(UsageError, match="learning_rate cannot be -1"):
        Protocol().with_changes({"learning_rate": -1.0})
