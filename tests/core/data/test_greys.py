"""Rules for greys: what they do to pixels, and that tokens are kept apart by them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from skimage import exposure

from emcache.cache.extract import run_extraction
from emcache.cache.feature_jobs import job_of
from emcache.cache.feature_set import list_feature_sets
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection, load_dataset
from emcache.data.greys import GreyRule, find_grey_rule, grey_rule_of
from emcache.data.images import read_image
from emcache.data.register import add_dataset
from emcache.errors import DatasetError, UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train

OPTIONS = ExtractOptions("tiny", "random:0", 56, precision="float32", device="cpu")
CELLS = Selection("cells", None)


def slice_of(seed: int, low: int = 60, high: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (64, 80)).astype(np.uint8)


def test_percentiles_become_black_and_white() -> None:
    pixels = slice_of(0)
    low, high = np.percentile(pixels, (1, 99))
    expected = np.clip(np.rint((pixels - low) / (high - low) * 255), 0, 255)
    np.testing.assert_array_equal(GreyRule("percentile").apply(pixels), expected)


def test_clahe_is_that_of_scikit_image() -> None:
    pixels = slice_of(0)
    expected = np.rint(exposure.equalize_adapthist(pixels) * 255)
    np.testing.assert_array_equal(GreyRule("clahe").apply(pixels), expected)


@pytest.mark.parametrize("name", ["none", "percentile", "clahe"])
def test_a_slice_of_one_grey_stays(name: str) -> None:
    pixels = np.full((40, 40), 77, np.uint8)
    np.testing.assert_array_equal(GreyRule(name).apply(pixels), pixels)


def test_a_histogram_becomes_that_of_the_training_slices(cells: Workspace) -> None:
    rule = find_grey_rule(cells, "histogram:cells", Quiet())
    assert sum(rule.counts) == 1 << 16
    slices = [s for s in load_dataset(cells, "cells").slices if s.split == "train"]
    pooled = np.concatenate([read_image(s.image, s.grey_window).ravel() for s in slices])
    quantiles = np.linspace(0.02, 0.98, 25)
    matched = rule.apply(slice_of(3))
    difference = np.quantile(matched, quantiles) - np.quantile(pooled, quantiles)
    assert np.abs(difference).max() <= 5  # sixty greys go onto more
    assert grey_rule_of(rule.identity()) == rule
    assert rule.label.startswith("histogram:cells@")
    assert GreyRule().identity() == {}


def test_each_rule_has_feature_sets_of_its_own(cells: Workspace) -> None:
    plain = run_extraction(plan_extraction(cells, CELLS, OPTIONS, Quiet()), Quiet()).feature_set
    names = {plain.name}
    for text in ("percentile", "clahe", "histogram:cells"):
        options = replace(OPTIONS, greys=find_grey_rule(cells, text, Quiet()))
        job = plan_extraction(cells, CELLS, options, Quiet())
        made = run_extraction(job, Quiet())
        assert made.computed == len(plain.slices)
        assert not np.array_equal(made.feature_set.tokens(0), plain.tokens(0))
        # What repairs a feature set makes the same again.
        again = job_of(cells, made.feature_set.folder, Quiet())
        assert (again.name, again.fingerprint) == (job.name, job.fingerprint)
        names.add(made.feature_set.name)
    assert len(names) == 4


def trained(workspace: Workspace, regime: str, normalise: str, head: str = "linear") -> Record:
    protocol = Protocol(head=head, learning_rate=0.01, max_epochs=1, normalise=normalise)
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
    ("regime", "head"), [("frozen", "linear"), ("frozen", "deconv-skip"), ("lora", "linear")]
)
def test_a_run_takes_its_rule_along(
    cells: Workspace, tmp_path: Path, regime: str, head: str
) -> None:
    shutil.copytree(tmp_path / "cells", tmp_path / "dark", dirs_exist_ok=True)
    for number, path in enumerate(sorted((tmp_path / "dark" / "images").glob("*.png"))):
        from PIL import Image

        Image.fromarray((np.asarray(Image.open(path)) // 3 + number % 3).astype(np.uint8)).save(
            path
        )
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(cells, "dark", "folder", tmp_path / "dark", masked, Quiet())
    record = trained(cells, regime, "histogram:dark", head)
    assert "normalise=histogram:dark" in record.config["protocol"]
    options = EvaluationOptions(device="cpu")
    again = evaluate_run(cells, record.id, ["cells:test"], options, Quiet())
    ours, theirs = (
        pl.read_parquet(item.file("slice_metrics.parquet")).select("slice_id", "class", "tp", "fp")
        for item in (record, again)
    )
    assert ours.equals(theirs)
    # The reference may change, or go: the record holds its histogram.
    shutil.rmtree(tmp_path / "dark")
    image = Path(str(load_dataset(cells, "cells").slices[0].image.path))
    out = tmp_path / "out"
    files, _ = predict(cells, record.id, [image], out, PredictionOptions(device="cpu"), Quiet())
    assert files[0].mask.is_file()
    again = evaluate_run(cells, record.id, ["cells:test"], options, Quiet())
    theirs = pl.read_parquet(again.file("slice_metrics.parquet"))
    assert ours.equals(theirs.select("slice_id", "class", "tp", "fp"))


def test_a_training_does_not_read_tokens_of_another_rule(cells: Workspace) -> None:
    plain, clahe = trained(cells, "frozen", "none"), trained(cells, "frozen", "clahe")
    assert plain.config["feature_sets"] != clahe.config["feature_sets"]
    assert plain.config["protocol"] == "paper[head=bn-linear, learning_rate=0.01, max_epochs=1]"
    assert len(list_feature_sets(cells.cache)) == 2


def test_rules_that_are_not_there(cells: Workspace) -> None:
    with pytest.raises(UsageError, match="no rule 'clash' for greys; known: none, percentile"):
        find_grey_rule(cells, "clash", Quiet())
    with pytest.raises(DatasetError, match="nothere"):
        find_grey_rule(cells, "histogram:nothere", Quiet())
    with pytest.raises(UsageError, match="normalise cannot be 'histogram:'; expected none"):
        Protocol(normalise="histogram:")
