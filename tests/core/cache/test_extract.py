import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import emcache.cache.blocks
import emcache.cache.extract
import emcache.cache.job_backbone
import emcache.cache.labels
import emcache.cache.recipe
import emcache.cache.writer
from emcache.cache.extract import Extraction, run_extraction
from emcache.cache.feature_set import FeatureSet
from emcache.cache.inputs import normalise
from emcache.cache.labels import ensure_labels
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.classes import ClassRule
from emcache.data.dataset import Selection
from emcache.data.images import read_image
from emcache.data.plane import Plane
from emcache.data.resize import resize_image
from emcache.errors import FormatVersionError, StoreError, WeightsError
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import TINY
from emcache.progress import Quiet
from emcache.storage.hashing import json_sha256
from emcache.storage.records import list_record_ids, read_record
from emcache.storage.workspace import Workspace

OPTIONS = ExtractOptions("tiny", "random:0", longest_edge=70)


def extract(
    workspace: Workspace, options: ExtractOptions = OPTIONS, name: str = "cells"
) -> Extraction:
    job = plan_extraction(workspace, Selection.parse(name), options, Quiet())
    return run_extraction(job, Quiet())


def token_bytes(feature_set: FeatureSet) -> dict[str, bytes]:
    return {
        path.relative_to(feature_set.folder).as_posix(): path.read_bytes()
        for path in sorted(feature_set.folder.rglob("*"))
        if "c" in path.parts and "labels" not in path.parts and path.is_file()
    }


@pytest.fixture
def forbid_backbone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def fail(job: object) -> None:
            pytest.fail("the backbone was built")

        monkeypatch.setattr(emcache.cache.job_backbone, "load_backbone", fail)

    return forbid


@pytest.fixture
def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def fail(*_: object) -> None:
            pytest.fail("slices went through the backbone")

        monkeypatch.setattr(emcache.cache.blocks.Block, "_compute", fail)

    return forbid


def test_tokens_are_the_backbones(cells: Workspace) -> None:
    feature_set = extract(cells, replace(OPTIONS, dtype="float32", precision="float32")).feature_set
    model = random_backbone(TINY, 0).eval().model

    for position, item in enumerate(feature_set.slices):
        image = read_image(Plane(cells.root.parent / "cells" / "images" / f"{item.id}.png"))
        pixels = torch.from_numpy(resize_image(image, (70, 70)))
        with torch.inference_mode():
            sequence = model.forward_features(normalise(pixels[None]))[0]
        expected = sequence[1:].reshape(5, 5, 64).numpy()
        np.testing.assert_allclose(feature_set.tokens(position), expected, atol=1e-5)
        np.testing.assert_allclose(feature_set.pooled()[position], expected.mean((0, 1)), atol=1e-5)
        np.testing.assert_allclose(feature_set.cls()[position], sequence[0].numpy(), atol=1e-5)


def test_a_batch_is_begun_before_the_one_before_it_is_stored(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = emcache.cache.blocks.begin_to_fetch, []

    def watched(tensors: dict[str, torch.Tensor], device: torch.device) -> Callable[[], object]:
        number = sum(kind == "begun" for kind, _ in seen)
        seen.append(("begun", number))
        wait = real(tensors, device)
        return lambda: (seen.append(("stored", number)), wait())[1]

    monkeypatch.setattr(emcache.cache.blocks, "begin_to_fetch", watched)
    extract(cells, replace(OPTIONS, batch=2))
    assert seen[:3] == [("begun", 0), ("begun", 1), ("stored", 0)]
    assert seen[-1] == ("stored", max(number for _, number in seen))


def test_the_record_counts_the_time_of_the_computing(cells: Workspace) -> None:
    extract(cells)
    (record_id,) = [name for name in list_record_ids(cells.runs) if "extract" in name]
    record = read_record(cells.runs / record_id)
    assert record.content["seconds"] >= record.config["compute_seconds"] > 0


def test_a_second_run_extracts_nothing(
    cells: Workspace, forbid_backbone: Callable[[], None]
) -> None:
    first = extract(cells)
    assert (first.computed, first.copied) == (10, 0)
    forbid_backbone()
    again = extract(cells)
    assert again.record is None
    assert again.feature_set.folder == first.feature_set.folder
    # The dataset, its audit, and one extraction.
    assert len(list_record_ids(cells.runs)) == 3


def test_touching_files_changes_nothing(
    cells: Workspace, cells_root: Path, forbid_backbone: Callable[[], None]
) -> None:
    first = extract(cells)
    for path in cells_root.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    forbid_backbone()
    assert extract(cells).feature_set.name == first.feature_set.name


def test_one_changed_slice_computes_one(cells: Workspace, cells_root: Path) -> None:
    first = extract(cells).feature_set
    path = cells_root / "images" / "4.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    second = extract(cells)
    assert (second.computed, second.copied) == (1, 9)
    assert second.feature_set.fingerprint != first.fingerprint
    for position in range(10):
        same = np.array_equal(first.tokens(position), second.feature_set.tokens(position))
        assert same == (position != 4)
    np.testing.assert_array_equal(first.cls()[:4], second.feature_set.cls()[:4])


def test_other_weights_make_another_feature_set(cells: Workspace) -> None:
    first, second = extract(cells), extract(cells, replace(OPTIONS, weights="random:1"))
    assert second.computed == 10
    assert first.feature_set.fingerprint != second.feature_set.fingerprint
    assert not np.array_equal(first.feature_set.tokens(0), second.feature_set.tokens(0))


def test_changed_weight_bytes_make_another_feature_set(cells: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    state = random_backbone(TINY, 5).model.state_dict()
    torch.save(state, file)
    options = replace(OPTIONS, weights=str(file))
    first = extract(cells, options)
    assert extract(cells, options).record is None
    state["norm.bias"] = state["norm.bias"] + 1
    torch.save(state, file)
    second = extract(cells, options)
    assert second.computed == 10
    assert second.feature_set.fingerprint != first.feature_set.fingerprint


def test_a_corrected_mask_runs_no_backbone(
    cells: Workspace, cells_root: Path, forbid_backbone: Callable[[], None]
) -> None:
    first = extract(cells).feature_set
    path = cells_root / "masks" / "4.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    forbid_backbone()
    again = extract(cells)
    assert again.record is None
    assert again.feature_set.folder == first.folder
    labels = sorted(p.name for p in (first.folder / "labels").iterdir() if p.name[0] != ".")
    assert len(labels) == 2


def test_labels_are_the_resized_masks(cells: Workspace, cells_root: Path) -> None:
    job = plan_extraction(cells, Selection.parse("cells"), OPTIONS, Quiet())
    feature_set = run_extraction(job, Quiet()).feature_set
    labels = ensure_labels(feature_set, job.slices, ClassRule(), Quiet())
    for position, item in enumerate(job.slices):
        mask = Image.open(cells_root / "masks" / f"{item.id}.png")
        small = np.asarray(mask.resize((70, 70), Image.Resampling.NEAREST)) >= 128
        np.testing.assert_array_equal(labels.mask(position), small)
        share = small.reshape(5, 14, 5, 14).mean((1, 3))
        np.testing.assert_allclose(labels.occupancy(position), share, atol=1e-6)


def test_slices_of_several_sizes(cells: Workspace, cells_root: Path) -> None:
    for number in (2, 7):
        for kind in ("images", "masks"):
            path = cells_root / kind / f"{number}.png"
            Image.open(path).crop((0, 0, 84, 50)).save(path)
    feature_set = extract(cells).feature_set
    assert {item.grid for item in feature_set.slices} == {(5, 5), (2, 5)}
    assert feature_set.tokens(7).shape == (2, 5, 64)
    assert feature_set.pooled().shape == (10, 64)


def test_planned_files_and_bytes_are_the_real_ones(cells: Workspace, cells_root: Path) -> None:
    for kind in ("images", "masks"):
        path = cells_root / kind / "2.png"
        Image.open(path).crop((0, 0, 84, 50)).save(path)
    job = plan_extraction(cells, Selection.parse("cells"), OPTIONS, Quiet())
    planned_files, planned_bytes = job.n_files, job.token_bytes
    done = run_extraction(job, Quiet())
    assert done.record is not None
    assert done.record.config["n_files"] == planned_files
    assert planned_bytes == (9 * 25 + 10) * 64 * 2


def test_an_unlabelled_split_has_no_labels(cells: Workspace) -> None:
    only_test = extract(cells, name="cells:test").feature_set
    assert len(only_test.slices) == 2
    whole = extract(cells)
    assert (whole.computed, whole.copied) == (8, 2)


class TestDamage:
    def test_a_missing_shard_is_not_read_as_zeros(self, cells: Workspace) -> None:
        folder = extract(cells).feature_set.folder
        (folder / "grids/5x5/tokens/c/0/0/0/0").unlink()
        with pytest.raises(StoreError, match="tokens/c/0/0/0/0 is missing"):
            FeatureSet.open(folder)

    def test_an_emptied_shard_is_found(self, cells: Workspace) -> None:
        folder = extract(cells).feature_set.folder
        (folder / "grids/5x5/tokens/c/0/0/0/0").write_bytes(b"")
        with pytest.raises(StoreError, match="has 0 bytes instead of"):
            FeatureSet.open(folder)

    def test_a_flipped_bit_names_the_slice(self, cells: Workspace) -> None:
        feature_set = extract(cells).feature_set
        path = feature_set.folder / "grids/5x5/tokens/c/0/0/0/0"
        data = bytearray(path.read_bytes())
        data[3 * 5 * 5 * 64 * 2 + 3 * 4 + 100] ^= 1
        path.write_bytes(data)
        with pytest.raises(StoreError, match=r"tokens of slice 3 in .* are damaged"):
            FeatureSet.open(feature_set.folder).tokens(3)

    def test_a_newer_format_is_refused(self, cells: Workspace) -> None:
        folder = extract(cells).feature_set.folder
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["sha256"]
        manifest["format"] = 99
        manifest["sha256"] = json_sha256(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(FormatVersionError, match="has format 99"):
            extract(cells)

    def test_tokens_that_are_not_finite_name_the_slice(
        self, cells: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = emcache.cache.blocks.normalise

        def poisoned(pixels: torch.Tensor) -> torch.Tensor:
            images = real(pixels)
            images[1] = float("nan")
            return images

        monkeypatch.setattr(emcache.cache.blocks, "normalise", poisoned)
        with pytest.raises(StoreError, match="tokens of slice 1 are not finite"):
            extract(cells)


class TestCrash:
    """An exception stands in for the crash: what it leaves behind is the same."""

    @pytest.fixture
    def job(self, cells: Workspace) -> Job:
        return plan_extraction(cells, Selection.parse("cells"), OPTIONS, Quiet())

    def crash(
        self, job: Job, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(KeyboardInterrupt):
                run_extraction(job, Quiet())

    def test_before_the_manifest_keeps_every_shard(
        self, job: Job, monkeypatch: pytest.MonkeyPatch, forbid_computing: Callable[[], None]
    ) -> None:
        self.crash(job, monkeypatch, emcache.cache.writer, "write_manifest")
        forbid_computing()
        done = run_extraction(job, Quiet())
        assert not (done.feature_set.folder / "receipts").exists()
        assert done.record is not None

    def test_before_the_record_loses_no_record(
        self, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.crash(job, monkeypatch, emcache.cache.extract, "write_record")
        assert len(list_record_ids(job.workspace.runs)) == 2, "the dataset and its audit"
        again = run_extraction(job, Quiet())
        assert again.record is None
        name = again.feature_set.manifest["extraction"]["record_id"]
        record = read_record(job.workspace.runs / name)
        assert record.config["n_computed"] == 10
        assert record.config["feature_set"] == again.feature_set.name

    @pytest.mark.parametrize("file", ["grids/5x5/tokens/c/0/0/0/0", "grids/5x5/tokens/zarr.json"])
    def test_what_a_crash_damaged_is_written_again(
        self, job: Job, monkeypatch: pytest.MonkeyPatch, file: str
    ) -> None:
        self.crash(job, monkeypatch, emcache.cache.writer, "write_manifest")
        (partial,) = job.workspace.cache.glob("*.partial")
        path = partial / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        feature_set = run_extraction(job, Quiet()).feature_set
        assert np.isfinite(feature_set.tokens(9)).all()
        assert feature_set.tokens(9).any()

    def test_labels_made_by_another_process_meanwhile_are_taken(
        self, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = emcache.cache.labels.write_manifest

        def overtaken(folder: Path, content: dict[str, object], known: dict[str, str]) -> None:
            real(folder, content, known)
            shutil.copytree(folder, folder.with_name(folder.name.split(".")[1]))

        monkeypatch.setattr(emcache.cache.labels, "write_manifest", overtaken)
        feature_set = run_extraction(job, Quiet()).feature_set
        assert len(list((feature_set.folder / "labels").iterdir())) == 1


def test_weights_that_change_after_planning_are_never_used(
    cells: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    torch.save(random_backbone(TINY, 1).model.state_dict(), file)
    options = replace(OPTIONS, weights=str(file))
    job = plan_extraction(cells, Selection.parse("cells"), options, Quiet())
    torch.save(random_backbone(TINY, 2).model.state_dict(), file)
    with pytest.raises(WeightsError, match="changed after they were hashed"):
        run_extraction(job, Quiet())
    assert not any(path.is_dir() for path in cells.cache.iterdir())


def test_a_resumed_extraction_keeps_finished_shards(
    cells: Workspace, monkeypatch: pytest.MonkeyPatch, listener
) -> None:
    monkeypatch.setattr(emcache.cache.recipe, "_FEWEST_SLICES", 4)
    monkeypatch.setattr(emcache.cache.recipe, "_MOST_SLICES", 4)
    job = plan_extraction(cells, Selection.parse("cells"), OPTIONS, Quiet())
    real = emcache.cache.blocks.Block._compute
    seen: list[int] = []

    def compute(self, parts, backbone, images, advance) -> None:
        seen.append(self.shard.number)
        if len(seen) == 2:
            raise KeyboardInterrupt
        real(self, parts, backbone, images, advance)

    monkeypatch.setattr(emcache.cache.blocks.Block, "_compute", compute)
    with pytest.raises(KeyboardInterrupt):
        run_extraction(job, Quiet())
    done = run_extraction(job, listener)
    assert seen == [0, 1, 1, 2]
    assert any("4 of 10 slices are done" in line for line in listener.lines)
    assert len(done.feature_set.slices) == 10
