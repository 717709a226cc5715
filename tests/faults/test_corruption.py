"""Flipped, missing and emptied: found, named to the slice, and repaired."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch
from emcache_bench.synthetic import STYLES, write_domain

import emcache.cache.recipe
from emcache.cache.extract import run_extraction
from emcache.cache.feature_set import FeatureSet, list_feature_sets
from emcache.cache.find import FeatureRequest
from emcache.cache.labels import ensure_labels
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.dataset import Selection
from emcache.data.register import add_dataset
from emcache.errors import RecordError, StoreError
from emcache.maintenance.repair import repair_feature_set, verify_cache, verify_feature_set
from emcache.progress import Quiet
from emcache.storage.records import Record, read_record
from emcache.storage.workspace import Workspace, init_workspace
from emcache.training.checkpoints import CheckpointFolder, Progress
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache_warehouse.sync import check, repair, sync

SLICES = 20
Harm = Callable[[Path, random.Random], None]


def flip(path: Path, random_: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)


def shorten(path: Path, random_: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: random_.randrange(path.stat().st_size)])


def empty(path: Path, random_: random.Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, random_: random.Random) -> None:
    path.unlink()


HARMS: tuple[Harm, ...] = (flip, shorten, empty, remove)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Job, Record]:
    """A workspace with one feature set of three shards, its labels, and a training."""
    root = tmp_path_factory.mktemp("corruption")
    write_domain(root / "slices", STYLES["sharp"], slices=SLICES, size=56, seed=0)
    workspace, _ = init_workspace(root / "workspace")
    places = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "cells", "folder", root / "slices", places, Quiet())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emcache.cache.recipe, "_MOST_SLICES", 8)
        options = ExtractOptions("tiny", "random:0", 56)
        job = plan_extraction(workspace, Selection("cells", None), options, Quiet())
        run_extraction(job, Quiet())
        protocol = Protocol(head="linear", max_epochs=2)
        (record,) = run_training(
            workspace, TrainingRequest(datasets=["cells"], seeds=[0], protocol=protocol), Quiet()
        )
    return workspace, job, record


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(emcache.cache.recipe, "_MOST_SLICES", 8)


def bytes_below(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def feature_set_cases(folder: Path, full: bool) -> list[tuple[str, Harm, int]]:
    """Every file with every harm; where it is flipped, more than once if all shall be tried."""
    return [
        (path.relative_to(folder).as_posix(), harm, seed)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for harm in HARMS
        for seed in range(12 if full and harm is flip else 1)
    ]


def test_every_harm_to_a_feature_set_is_found_and_repaired(place, full, chance, count):
    workspace, job, _ = place
    folder = workspace.cache / job.name
    before = bytes_below(folder)
    cases = feature_set_cases(folder, full)
    # Three shards of tokens and of each array of labels, and what describes them.
    assert len({name for name, *_ in cases}) >= 15
    flips = 0
    for name, harm, seed in cases if full else cases[::3]:
        sound = (folder / name).read_bytes()
        harm(folder / name, chance(f"{name} {seed}"))
        damages = verify_feature_set(folder)
        assert [d.file for d in damages] == [name], (name, harm)
        if "/c/" in name and name.startswith("grids"):
            flipped = harm is flip and "/tokens/" in name
            hit = hit_slices(folder / name, sound) if flipped else held(name)
            assert list(damages[0].slices) == hit, (name, damages)
        if harm is not flip:
            # A missing, shortened or emptied file is found by whoever opens the feature set.
            with pytest.raises(StoreError):
                _open_all(folder, job)
        flips += harm is flip
        if name.endswith("manifest.json") and not name.startswith("labels"):
            # Nobody can say what it held: it goes, and the same command makes it anew.
            outcome = repair_feature_set(workspace, folder.name, damages, Quiet())
            assert not outcome.repaired
            assert "emcache extract" in outcome.message
            run_extraction(job, Quiet())
            assert verify_cache(workspace.cache) == []
            _forget_extraction(folder, before)
            continue
        outcome = repair_feature_set(workspace, folder.name, damages, Quiet())
        assert outcome.repaired, outcome
        assert bytes_below(folder) == before, (name, harm)
    count("flipped bytes", flips)
    count("damaged files", len(cases if full else cases[::3]) - flips)


def held(name: str) -> list[str]:
    """The slices of a shard: eight each, in order."""
    number = int(name.split("/c/")[1].split("/")[0])
    return [f"{index:02d}" for index in range(SLICES)][8 * number : 8 * number + 8]


def hit_slices(path: Path, sound: bytes) -> list[str]:
    """The slice whose tokens hold a flipped byte; all of the shard where its index does."""
    (place,) = (i for i, (a, b) in enumerate(zip(sound, path.read_bytes(), strict=True)) if a != b)
    names = held(path.as_posix())
    # 4 x 4 tokens of 64 values in float16, and a CRC32C.
    number = place // (4 * 4 * 64 * 2 + 4)
    return [names[number]] if number < len(names) else names


def _open_all(folder: Path, job: Job) -> None:
    feature_set = FeatureSet.open(folder)
    for label_set in (folder / "labels").iterdir():
        from emcache.cache.labels import LABEL_FORMAT
        from emcache.storage.manifest import read_manifest

        read_manifest(label_set, LABEL_FORMAT)
    feature_set.pooled(), feature_set.cls()


def _forget_extraction(folder: Path, before: dict[str, str]) -> None:
    """A new extraction has an identifier of its own; all else is as before."""
    now = bytes_below(folder)
    assert {k: v for k, v in now.items() if k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }
    before["manifest.json"] = now["manifest.json"]


def test_no_flipped_token_is_ever_used(place, full, chance, count):
    """Whoever reads a slice of a flipped shard is told, or gets the tokens that were written."""
    workspace, job, _ = place
    feature_set = FeatureSet.open(workspace.cache / job.name)
    labels = ensure_labels(feature_set, job.slices, job.dataset.classes, Quiet())
    reads: list[Callable[[int], Any]] = [feature_set.tokens, labels.mask, labels.occupancy]
    good = [[read(i).copy() for i in range(SLICES)] for read in reads]
    files = [*sorted(feature_set.folder.glob("grids/*/tokens/c/**/0"))]
    files += sorted(labels.folder.glob("grids/*/*/c/**/0"))
    files = [path for path in files if path.is_file()]
    flips = told = 0
    random_ = chance("tokens")
    for _ in range(300 if full else 40):
        path = random_.choice(files)
        kept = path.read_bytes()
        flip(path, random_)
        flips += 1
        fresh = FeatureSet.open(feature_set.folder)
        again = ensure_labels(fresh, job.slices, job.dataset.classes, Quiet())
        for read, known in zip((fresh.tokens, again.mask, again.occupancy), good, strict=True):
            for i in range(SLICES):
                try:
                    assert (read(i) == known[i]).all()
                except StoreError as error:
                    told += f"{i:02d}" in str(error)
        path.write_bytes(kept)
    assert told >= flips
    count("flipped bytes", flips)


@pytest.mark.parametrize("harm", HARMS)
def test_every_harm_to_a_record_is_found(harm, place, chance, count):
    workspace, _, record = place
    for path in sorted(record.folder.iterdir()):
        kept = path.read_bytes()
        harm(path, chance(path.name))
        with pytest.raises(RecordError, match=record.id):
            read_record(record.folder)
        findings = {f.name: f.verdict for f in check(workspace.runs, workspace.warehouse)}
        assert findings["records"] == "fail"
        path.write_bytes(kept)
    assert read_record(record.folder).id == record.id
    count("damaged files", 4 if harm is not flip else 0)
    count("flipped bytes", 4 if harm is flip else 0)


def test_one_damaged_feature_set_keeps_no_other_from_being_used(place, tmp_path):
    workspace, job, _ = place
    options = ExtractOptions("tiny", "random:1", 56)
    other = plan_extraction(workspace, Selection("cells", None), options, Quiet())
    run_extraction(other, Quiet())
    shard = next((workspace.cache / other.name).glob("grids/*/tokens/c/0/0/0/0"))
    kept = shard.read_bytes()
    shard.unlink()
    try:
        assert [f.name for f in list_feature_sets(workspace.cache)] == [job.name]
        with pytest.raises(StoreError, match="cache verify --repair"):
            run_extraction(other, Quiet())
        protocol = Protocol(head="linear", max_epochs=1)
        request = FeatureRequest("tiny", "random:0")
        assert run_training(
            workspace,
            TrainingRequest(datasets=["cells"], features=request, seeds=[0], protocol=protocol),
            Quiet(),
        )
        # Where the damaged one may be what is meant, it is said.
        with pytest.raises(StoreError, match="is missing"):
            run_training(
                workspace,
                TrainingRequest(
                    datasets=["cells"],
                    features=FeatureRequest(weights="random:1"),
                    seeds=[0],
                    protocol=protocol,
                ),
                Quiet(),
            )
    finally:
        shard.write_bytes(kept)


# The warehouse


def test_a_damaged_warehouse_is_moved_aside_and_made_again(place, full, chance, count):
    workspace, _, _ = place
    sync(workspace.runs, workspace.warehouse)
    kept = workspace.warehouse.read_bytes()
    random_ = chance("warehouse")
    flips, cuts = (48, 12) if full else (2, 1)
    for harm in [flip] * flips + [shorten] * cuts:
        harm(workspace.warehouse, random_)
        findings = check(workspace.runs, workspace.warehouse)
        repair(workspace.runs, workspace.warehouse, findings)
        after = check(workspace.runs, workspace.warehouse)
        assert {f.verdict for f in after} == {"pass"}, after
        workspace.warehouse.write_bytes(kept)
    # Without its first blocks it cannot be opened; without others it may lack nothing that a sync
    # needs, so that only a check finds it, or a question.
    for length in (100_000, 0):
        workspace.warehouse.write_bytes(kept[:length])
        report = sync(workspace.runs, workspace.warehouse)
        assert "moved aside" in report.notes[0]
        assert {f.verdict for f in check(workspace.runs, workspace.warehouse)} == {"pass"}
    count("flipped bytes", flips)
    count("damaged files", cuts + 2)


def test_rows_that_differ_and_records_that_have_gone_are_fixed_at_once(place):
    workspace, *_ = place
    sync(workspace.runs, workspace.warehouse)
    findings = check(workspace.runs, workspace.warehouse)
    assert repair(workspace.runs, workspace.warehouse, findings) is None
    with duckdb.connect(str(workspace.warehouse)) as connection:
        connection.execute("DELETE FROM epochs")
        connection.execute(
            "INSERT INTO records SELECT * REPLACE ('gone' AS record_id) FROM records LIMIT 1"
        )
    findings = check(workspace.runs, workspace.warehouse)
    assert {f.name for f in findings if f.verdict != "pass"} == {"rows", "missing"}
    assert repair(workspace.runs, workspace.warehouse, findings) is not None
    assert {f.verdict for f in check(workspace.runs, workspace.warehouse)} == {"pass"}


# Checkpoints


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_checkpoint_is_no_checkpoint(harm, tmp_path, full, chance, count):
    made = 0
    for seed in range(50 if full else 8):
        folder = CheckpointFolder(tmp_path / str(seed))
        tensors = {"model/a": torch.arange(6.0), "generator": torch.arange(8, dtype=torch.uint8)}
        folder.after_epoch(lambda tensors=tensors: Progress(tensors, {"epoch": 3, "best": 2}))
        files = sorted((tmp_path / str(seed)).iterdir())
        assert len(files) == 2
        found = CheckpointFolder(tmp_path / str(seed)).load()
        assert found is not None
        assert torch.equal(found.tensors["model/a"], tensors["model/a"])
        assert found.facts == {"epoch": 3, "best": 2}
        harm(files[seed % 2], chance(f"checkpoint {seed}"))
        made += 1
        left = CheckpointFolder(tmp_path / str(seed)).load()
        # Cut by its last byte, the index lacks a newline and nothing else.
        newline = harm is shorten and files[seed % 2].read_bytes().endswith(b"}")
        assert left is None or (newline and left.facts == found.facts)
    count("flipped bytes" if harm is flip else "damaged files", made)
