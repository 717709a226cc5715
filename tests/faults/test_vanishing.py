"""What is removed while somebody reads it, and what a kill leaves half-written, is never tokens."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

import emcache.cache.writer
from emcache.cache.blocks import Layer
from emcache.cache.compute import compute_layers
from emcache.cache.extract import run_extraction
from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import Donors, FeatureRequest
from emcache.cache.job_backbone import load_job_backbone
from emcache.cache.labels import ensure_labels
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.cache.recipe import LABEL_FOLDER
from emcache.cache.writer import FeatureSetWriter
from emcache.data.dataset import Selection
from emcache.data.register import add_dataset
from emcache.errors import FormatVersionError, RecordError, StoreError
from emcache.gap.run import GapOptions, measure_gaps
from emcache.maintenance.prune import prune_cache
from emcache.maintenance.repair import verify_feature_set
from emcache.progress import Quiet
from emcache.storage.records import list_record_ids, new_record, new_record_id, read_record
from emcache.storage.workspace import Workspace, init_workspace
from emcache.training.checkpoints import unfinished_command
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

SLICES = 4
OPTIONS = ExtractOptions("tiny", "random:0", 56)


@pytest.fixture
def cells(tmp_path: Path) -> Workspace:
    write_domain(tmp_path / "slices", STYLES["sharp"], slices=SLICES, size=56, seed=0)
    workspace, _ = init_workspace(tmp_path / "workspace")
    places = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "cells", "folder", tmp_path / "slices", places, Quiet())
    return workspace


def plan(workspace: Workspace, options: ExtractOptions = OPTIONS) -> Job:
    return plan_extraction(workspace, Selection("cells", None), options, Quiet())


@pytest.mark.parametrize("what", ["grids/4x4/tokens/c", "pooled/c", "cls/c"])
def test_a_file_that_vanishes_is_an_error_and_not_zeros(cells, what):
    features = run_extraction(plan(cells), Quiet()).feature_set
    read = {"grids": lambda: features.tokens(1), "pooled": features.pooled, "cls": features.cls}
    read = read[what.partition("/")[0]]
    assert np.abs(read()).min() > 0
    shutil.rmtree(features.folder / what)
    with pytest.raises(StoreError, match=r"c/0(/0)+ is missing.*cache verify --repair"):
        read()


@pytest.mark.parametrize("what", ["mask", "occupancy"])
def test_so_are_labels(cells, what):
    job = plan(cells)
    features = run_extraction(job, Quiet()).feature_set
    labels = ensure_labels(features, job.slices, job.dataset.classes, Quiet())
    read = getattr(labels, what)
    assert read(0).any()
    shutil.rmtree(labels.folder / f"grids/4x4/{what}/c")
    with pytest.raises(StoreError, match=f"the {what} of slice 0 .* is damaged"):
        read(0)


def test_a_feature_set_that_is_removed_while_it_is_open_says_so(cells):
    job = plan(cells)
    features = run_extraction(job, Quiet()).feature_set
    labels = ensure_labels(features, job.slices, job.dataset.classes, Quiet())
    features.tokens(0), features.pooled(), labels.mask(0)
    shutil.rmtree(features.folder)
    for read in (lambda: features.tokens(0), features.pooled, lambda: labels.mask(0)):
        with pytest.raises(StoreError, match="was removed or put aside for repair while"):
            read()


def test_slices_copied_from_what_is_pruned_meanwhile_are_computed_by_the_next_command(
    cells, tmp_path, monkeypatch
):
    """The old feature set of a corrected slice is stale, and just then it is copied from."""
    old = run_extraction(plan(cells), Quiet()).feature_set
    good = [old.tokens(i).copy() for i in range(SLICES)]
    picture = tmp_path / "slices" / "images" / "3.png"
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    job, real, reads = plan(cells), Donors.read, []

    def read(self, item):
        reads.append(item)
        if len(reads) == 2:
            gone = prune_cache(cells, [], stale=True, dry_run=False, reporter=Quiet())
            assert [left.path for left in gone] == [old.folder]
        return real(self, item)

    monkeypatch.setattr(Donors, "read", read)
    with pytest.raises(StoreError, match="run the command again"):
        run_extraction(job, Quiet())
    assert len(reads) == 2
    again = run_extraction(plan(cells), Quiet())
    assert (again.computed, again.copied) == (SLICES, 0)
    for i in range(SLICES - 1):
        np.testing.assert_array_equal(again.feature_set.tokens(i), good[i])


def test_other_codecs_are_refused_before_they_unpack_anything(cells):
    features = run_extraction(plan(cells), Quiet()).feature_set
    path = features.folder / "grids/4x4/tokens/zarr.json"
    facts = json.loads(path.read_text())
    shard = facts["codecs"][0]["configuration"]
    zstd = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
    for place in ("codecs", "index_codecs"):
        kept = shard[place]
        shard[place] = [kept[0], zstd, kept[1]]
        path.write_text(json.dumps(facts))
        fresh = FeatureSet(features.folder, features.manifest, features.slices)
        with pytest.raises(StoreError, match=r"its codecs are .*zstd.* instead of bytes, crc32c"):
            fresh.tokens(0)
        shard[place] = kept


def test_no_labels_are_made_for_what_has_gone(cells):
    job = plan(cells)
    features = run_extraction(job, Quiet()).feature_set
    shutil.rmtree(features.folder)
    with pytest.raises(StoreError, match="run the command again"):
        ensure_labels(features, job.slices, job.dataset.classes, Quiet())
    assert not features.folder.exists()
    assert run_extraction(job, Quiet()).computed == SLICES


def test_half_written_files_do_not_become_part_of_a_feature_set(cells, monkeypatch):
    """As zarr and emcache name them while they write."""
    job = plan(cells)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureSetWriter, "finish", lambda *args: pytest.skip("unreachable"))
        partial = job.workspace.cache / f"{job.name}.partial"
        with pytest.raises(BaseException, match="unreachable"):
            compute_layers([Layer(job, Donors({}))], load_job_backbone(job, Quiet()), Quiet())
    junk = [
        partial / f"grids/4x4/tokens/c/0/0/0/0.{'ab' * 16}.partial",
        partial / ".manifest.json.12345678.tmp",
        partial / "receipts" / ".4x4-0.npz.12345678.tmp",
    ]
    for path in junk:
        path.write_bytes(b"half")
    features = run_extraction(job, Quiet()).feature_set
    assert not [name for name in features.manifest["files"] if name.endswith(("partial", "tmp"))]
    stated = {*features.manifest["files"], "manifest.json"}
    found = {
        path.relative_to(features.folder).as_posix()
        for path in features.folder.rglob("*")
        if path.is_file() and LABEL_FOLDER not in path.parts
    }
    assert found == stated
    assert verify_feature_set(features.folder) == []


@pytest.mark.parametrize("way", ["extract", "prune"])
def test_receipts_that_a_kill_left_in_a_finished_feature_set_go(way, cells, monkeypatch):
    job = plan(cells)

    real = shutil.rmtree

    def killed(path, **how):
        if Path(path).name == "receipts":
            raise SystemExit
        real(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(emcache.cache.writer.shutil, "rmtree", killed)
        with pytest.raises(SystemExit):
            run_extraction(job, Quiet())
    folder = cells.cache / job.name
    assert list((folder / "receipts").iterdir())
    if way == "extract":
        assert run_extraction(job, Quiet()).record is None
    else:
        (gone,) = prune_cache(cells, [], stale=False, dry_run=False, reporter=Quiet())
        assert gone.path == folder / "receipts"
    assert not (folder / "receipts").exists()
    assert verify_feature_set(folder) == []


def test_a_damaged_record_of_a_seed_does_not_stand_in_the_way_of_the_next(tmp_path):
    """The first attempt ended seed 0 and was killed in seed 1; then a byte of seed 0 flipped."""
    runs, key = tmp_path / "runs", "a" * 64

    def train(seed: int, command) -> str:
        with new_record(runs, "train-head", command.begin(seed, "train-head")) as draft:
            draft.path("head.safetensors").write_bytes(b"1234")
        return draft.id

    class Killed(BaseException):
        pass

    first = None
    with suppress(Killed), unfinished_command(runs, key, "training", Quiet()) as command:
        first = train(0, command)
        command.end(0)
        raise Killed
    (runs / first / "head.safetensors").write_bytes(b"1235")
    with unfinished_command(runs, key, "training", Quiet()) as command:
        assert command.finished(0) is None
        second = train(0, command)
    assert second != first
    assert read_record(runs / second).id == second
    assert list_record_ids(runs) == sorted([first, second])


def test_of_two_records_of_one_name_the_first_stands(tmp_path):
    """Of two processes that make one thing, neither shows an error, and nothing is overwritten."""
    name = new_record_id("extract")
    with new_record(tmp_path, "extract", name) as mine:
        mine.config = {"whose": "mine"}
        shutil.copytree(_made(tmp_path / "elsewhere", name), tmp_path / name)
    assert mine.finish().config["whose"] == "the other's"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".draft")]
    (tmp_path / name / "record.json").write_text("{}")
    with pytest.raises(RecordError, match="is damaged"), new_record(tmp_path, "extract", name):
        pass


def _made(runs: Path, name: str) -> Path:
    with new_record(runs, "extract", name) as draft:
        draft.config = {"whose": "the other's"}
    return draft.finish().folder


def test_what_another_name_just_made_is_not_recorded_twice(cells, monkeypatch):
    """Its maker holds the lock of its own name until the record stands."""
    done = run_extraction(plan(cells), Quiet())
    assert done.record is not None
    shutil.rmtree(done.record.folder)
    asked: list[str] = []
    from emcache.cache import extract

    real = extract.held

    def held(path, what, reporter):
        asked.append(path.name)
        if len(asked) == 2:
            _made(cells.runs, done.record.id)
        return real(path, what, reporter)

    monkeypatch.setattr(extract, "held", held)
    add_dataset(
        cells,
        "again",
        "folder",
        cells.root.parent / "slices",
        {"images": "images/*.png"},
        Quiet(),
    )
    job = plan_extraction(cells, Selection("again", None), OPTIONS, Quiet())
    found = run_extraction(job, Quiet())
    assert found.feature_set.folder == done.feature_set.folder
    assert asked == [f".{job.name}.lock", f".{done.feature_set.name}.lock"]
    assert read_record(cells.runs / done.record.id).config["whose"] == "the other's"


def test_a_flipped_format_is_damage_and_not_another_version(cells):
    """Nobody shall upgrade, or keep what could be repaired, because of one byte."""
    done = run_extraction(plan(cells), Quiet())
    assert done.record is not None
    for path, read in (
        (done.feature_set.folder / "manifest.json", FeatureSet.open),
        (done.record.folder / "record.json", read_record),
    ):
        text = path.read_text()
        assert '"format": 1' in text
        path.write_text(text.replace('"format": 1', '"format": 9', 1))
        with pytest.raises((StoreError, RecordError), match="checksum") as caught:
            read(path.parent)
        assert not isinstance(caught.value, FormatVersionError)


def test_what_uses_a_feature_set_writes_the_record_that_its_killed_maker_did_not(cells, tmp_path):
    """Killed between the two, whichever command goes on: `extract` is not the only one that may."""
    done = run_extraction(plan(cells), Quiet())
    assert done.record is not None
    lost = read_record(done.record.folder)
    options = {"seeds": [0], "protocol": Protocol(head="linear", max_epochs=1)}
    for use in (
        lambda: run_training(cells, TrainingRequest(datasets=["cells"], **options), Quiet()),
        lambda: measure_gaps(
            cells, ["cells", "cells:train"], GapOptions(FeatureRequest()), Quiet()
        ),
    ):
        shutil.rmtree(done.record.folder)
        use()
        again = read_record(done.record.folder)
        assert again.config == lost.config
        assert again.has("slices.parquet")


def test_a_record_that_can_no_longer_be_written_keeps_nobody_from_training(cells, listener):
    done = run_extraction(plan(cells), Quiet())
    assert done.record is not None
    shutil.rmtree(done.record.folder)
    renamed = cells.config_path.read_text().replace("[datasets.cells]", "[datasets.others]")
    cells.config_path.write_text(renamed)
    options = {"seeds": [0], "protocol": Protocol(head="linear", max_epochs=1)}
    assert run_training(cells, TrainingRequest(datasets=["others"], **options), listener)
    assert any(f"The record of {done.feature_set.name} is missing" in s for s in listener.lines)
