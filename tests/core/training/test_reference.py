"""Whether new slices are like those of the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import load_dataset
from emcache.data.register import add_dataset
from emcache.errors import RecordError
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.evaluation.trained_run import find_run
from emcache.gap.outside import measure_familiarity
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.reference import (
    SHRINKAGE,
    compare,
    load_references,
    save_references,
    take_reference,
)
from emcache.training.run import train


def stack(seed: int, slices: int, shift: float = 0.0, mixing: int = 0) -> list[np.ndarray]:
    """Slices whose tokens share an offset of their own, as those of real slices do."""
    mix = np.random.default_rng(mixing).normal(size=(6, 6))
    random = np.random.default_rng(seed)
    return [
        (random.normal(size=(8, 8, 6)) + 0.5 * random.normal(size=6) + shift) @ mix
        for _ in range(slices)
    ]


def test_the_distance_is_that_of_the_formula() -> None:
    slices, new = stack(0, 12), stack(1, 1)[0]
    reference = take_reference("cells", slices.__getitem__, range(12))
    assert reference is not None
    tokens = np.concatenate([s.reshape(-1, 6) for s in slices])
    covariance = np.cov(tokens.T)
    level = np.trace(covariance) / 6
    shrunken = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(6)
    centred = new.reshape(-1, 6) - tokens.mean(axis=0)
    each = [row @ np.linalg.inv(shrunken) @ row for row in centred]
    distance = reference.distance(new)
    assert distance.tokens == pytest.approx(np.mean(each) / 6, rel=1e-9)
    mean = centred.mean(axis=0)
    assert distance.slice == pytest.approx(mean @ np.linalg.inv(shrunken) @ mean / 6, rel=1e-9)


def test_a_training_slice_is_measured_without_its_neighbours() -> None:
    slices = stack(0, 20)
    slices[6] = slices[7] = slices[6] + 30.0  # one block of two that stands out
    reference = take_reference("cells", slices.__getitem__, range(20))
    assert reference is not None
    # Had it been fitted with them, they would lie far nearer.
    inside = reference.distance(slices[6]).tokens
    assert reference.tokens[6] > 5 * inside


def test_false_alarms_are_as_many_as_stated() -> None:
    alarms, new = 0, 0
    for seed in range(60):
        drawn = stack(seed, 49)
        reference = take_reference("cells", drawn.__getitem__, range(39))
        assert reference is not None
        found = [compare([reference], tokens) for tokens in drawn[39:]]
        alarms += sum(one.outside for one in found)
        new += len(found)
    assert 0.02 < alarms / new < 0.09  # 0.05 is meant; 600 slices


def test_another_domain_is_outside_and_a_mixture_knows_both() -> None:
    ours, theirs = stack(0, 24), stack(1, 24, shift=4.0, mixing=5)
    references = [
        take_reference(name, slices.__getitem__, range(20))
        for name, slices in (("ours", ours), ("theirs", theirs))
    ]
    assert all(references)
    assert compare(references[:1], theirs[22]).outside
    assert not compare(references, theirs[22]).outside
    assert compare(references, theirs[22]).nearest == "theirs"
    assert compare(references, ours[22]).nearest == "ours"
    found = compare(references[:1], theirs[22])
    assert found.p_tokens == references[0].smallest == 1 / 21


def test_references_are_kept(tmp_path: Path) -> None:
    reference = take_reference("cells", stack(0, 10).__getitem__, range(10))
    save_references(tmp_path / "reference.npz", [reference])
    (again,) = load_references(tmp_path / "reference.npz")
    new = stack(3, 1)[0]
    assert again.distance(new).tokens == pytest.approx(reference.distance(new).tokens, rel=1e-5)
    assert again.name == "cells"
    np.testing.assert_array_equal(again.tokens, reference.tokens)
    (tmp_path / "reference.npz").write_bytes(b"none")
    with pytest.raises(RecordError, match="restore the record"):
        load_references(tmp_path / "reference.npz")
    assert take_reference("cells", stack(0, 3).__getitem__, range(3)) is None


@pytest.fixture
def two(cells: Workspace, tmp_path: Path) -> Workspace:
    write_domain(tmp_path / "noise", STYLES["soft"], slices=4, size=100, seed=9)
    random = np.random.default_rng(1)
    for path in (tmp_path / "noise" / "images").glob("*.png"):
        Image.fromarray(random.integers(0, 256, (100, 100), np.uint8)).save(path)
    masked = {"images": "images/*.png"}
    add_dataset(cells, "noise", "folder", tmp_path / "noise", masked, Quiet())
    return cells


def trained(workspace: Workspace, regime: str, **changes: object) -> Record:
    protocol = Protocol(head="linear", learning_rate=0.01, max_epochs=1).with_changes(changes)
    request = TrainingRequest(
        datasets=["cells"],
        regime=regime,
        features=FeatureRequest("tiny", "random:0", 70),
        protocol=protocol,
        precision="float32",
        device="cpu",
    )
    (record,) = train(workspace, request, Quiet())
    return record


@pytest.mark.parametrize(
    ("regime", "align"), [("frozen", "none"), ("frozen", "standardise"), ("lora", "none")]
)
def test_new_slices_are_compared(
    two: Workspace, tmp_path: Path, listener, regime: str, align: str
) -> None:
    record = trained(two, regime, align=align)
    rows, kept = measure_familiarity(two, record.id, ["cells", "noise"], listener, device="cpu")
    of = {name: [row for row in rows if row["domain"] == name] for name in ("cells", "noise")}
    assert all(row["outside"] for row in of["noise"])
    learned = [row for row in of["cells"] if row["learned_from"]]
    assert 0 < len(learned) < len(of["cells"])
    assert not any(row["outside"] for row in learned)
    assert any("noise: 4 of 4 new slices lie outside" in line for line in listener.lines)
    assert kept.config["run_id"] == record.id
    inputs = [
        Path(str(load_dataset(two, name).slices[0].image.path)) for name in ("cells", "noise")
    ]
    options = PredictionOptions(device="cpu")
    noise = tmp_path / "noise-again.png"
    noise.write_bytes(inputs[1].read_bytes())
    given = [inputs[0], noise]
    files, done = predict(two, record.id, given, tmp_path / "out", options, listener)
    assert len(files) == 2
    assert done.config["n_outside"] == 1
    assert any("1 of 2 slices are unlike those" in line for line in listener.lines)
    # The same figures, whichever way the tokens were made.
    direct = {row["slice_id"]: row["distance"] for row in of["noise"]}
    assert find_run(two, record.id).references()[0].smallest == 1 / (len(learned) + 1)
    assert min(direct.values()) > 2


def test_a_run_that_keeps_no_reference(two: Workspace) -> None:
    record = trained(two, "frozen")
    (record.folder / "reference.npz").unlink()
    with pytest.raises(RecordError):
        measure_familiarity(two, record.id, ["noise"], Quiet())
