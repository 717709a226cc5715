"""Boundaries and objects of what runs predicted and kept."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from emcache.cache.find import FeatureRequest
from emcache.data.classes import class_rule
from emcache.data.dataset import load_dataset
from emcache.errors import RecordError, UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.measure import (
    TABLE,
    MetricOptions,
    _Kept,
    _places,
    _volumes,
    measure_run,
    measure_runs,
)
from emcache.evaluation.shapes import boundary_scores, dice, object_scores
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train
from emcache_warehouse.query import run_named_query
from emcache_warehouse.sync import sync

LINEAR = Protocol(head="linear", learning_rate=1e-2, max_epochs=2)


@pytest.fixture
def run(cells: Workspace) -> Record:
    request = TrainingRequest(
        datasets=["cells"],
        features=FeatureRequest("tiny", "random:0", 70),
        protocol=LINEAR,
        save_predictions=True,
    )
    (record,) = train(cells, request, Quiet())
    return record


def kept(record: Record, slice_id: str) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = (
        np.asarray(Image.open(record.file(f"{kind}/cells/{slice_id}.png"))) > 0
        for kind in ("masks", "predictions")
    )
    return true, predicted


def test_rows_are_those_of_the_kept_masks(cells: Workspace, run: Record) -> None:
    options = MetricOptions(tolerance=1.0, smallest=4)
    rows = pl.read_parquet(measure_run(cells, run.id, options, Quiet()).file(TABLE))
    slices = rows.filter(dimensions=2)
    tested = [s.id for s in load_dataset(cells, "cells").labelled if s.split == "test"]
    assert slices["slice_id"].to_list() == tested
    for row in slices.iter_rows(named=True):
        true, predicted = kept(run, row["slice_id"])
        boundaries, objects = (
            boundary_scores(true, predicted, 1.0),
            object_scores(true, predicted, 4),
        )
        assert row["dice"] == dice(true, predicted)
        assert row["boundary_f"] == boundaries.boundary_f
        assert row["hausdorff_95"] == boundaries.hausdorff_95
        assert row["iou_sum_50"] == objects.iou_sum_50
        assert row["adapted_rand_error"] == objects.adapted_rand_error
    volumes = rows.filter(dimensions=3)
    assert volumes["n_slices"].sum() <= len(tested)
    for row in volumes.iter_rows(named=True):
        first = tested.index(row["slice_id"])
        both = zip(*(kept(run, s) for s in tested[first : first + row["n_slices"]]), strict=True)
        objects = object_scores(*map(np.stack, both), 4)
        assert (row["n_true"], row["iou_sum_75"]) == (objects.n_true, objects.iou_sum_75)
    assert volumes.height > 0


def test_the_query_counts_objects_together(cells: Workspace, run: Record) -> None:
    rows = pl.read_parquet(measure_run(cells, run.id, MetricOptions(), Quiet()).file(TABLE))
    # A second measurement of the same kind takes the place of the first, another stands beside it.
    measure_run(cells, run.id, MetricOptions(), Quiet())
    measure_run(cells, run.id, MetricOptions(tolerance=0.5), Quiet())
    sync(cells.runs, cells.warehouse)
    found = run_named_query(cells.warehouse, "metrics")
    assert found["tolerance"].unique().sort().to_list() == [0.5, 2.0]
    (row,) = found.filter(dimensions=2, tolerance=2.0).to_dicts()
    own = rows.filter(dimensions=2)
    total = own["n_true"].sum() + own["n_predicted"].sum()
    assert row["n_slices"] == own.height
    assert row["panoptic_quality_50"] == pytest.approx(2 * own["iou_sum_50"].sum() / total)
    assert row["object_f1_75"] == pytest.approx(2 * own["matched_75"].sum() / total)
    assert row["dice_mean"] == pytest.approx(own["dice"].mean())
    assert row["n_distances"] == own["hausdorff_95"].count()


def test_evaluations_that_kept_predictions_count_and_the_newest_wins(
    cells: Workspace, run: Record
) -> None:
    options = EvaluationOptions(save_predictions=True)
    older = evaluate_run(cells, run.id, ["cells:train"], options, Quiet())
    newer = evaluate_run(cells, run.id, ["cells"], options, Quiet())
    evaluate_run(cells, run.id, ["cells"], EvaluationOptions(), Quiet())
    measured = measure_run(cells, run.id, MetricOptions(), Quiet())
    assert measured.config["measured"] == sorted([run.id, newer.id])
    assert older.id not in measured.config["measured"]
    rows = pl.read_parquet(measured.file(TABLE)).filter(dimensions=2)
    assert rows.height == len(load_dataset(cells, "cells").labelled)
    assert rows.select("split", "slice_id").is_duplicated().sum() == 0


def test_a_run_without_predictions_says_how_to_make_them(cells: Workspace, run: Record) -> None:
    request = TrainingRequest(
        datasets=["cells"],
        features=FeatureRequest("tiny", "random:0", 70),
        protocol=replace(LINEAR, max_epochs=1),
    )
    (bare,) = train(cells, request, Quiet())
    with pytest.raises(RecordError, match=r"--on cells:test --save-predictions"):
        measure_run(cells, bare.id, MetricOptions(), Quiet())
    with pytest.raises(RecordError, match="there is no run"):
        measure_runs(cells, ["nothing"], MetricOptions(), Quiet())


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"tolerance": -1.0}, "--tolerance -1"), ({"smallest": 0}, "--smallest-object 0")],
)
def test_options_that_cannot_be(fields: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        MetricOptions(**fields)


@pytest.mark.parametrize(
    "values",
    [
        None,
        {"background": [0], "cell": [7, 9], "ignore": [3]},
        {"background": [0], "cell": [700]},
    ],
)
def test_a_shown_mask_is_read_again(values: dict | None) -> None:
    rule = class_rule(None, values)
    labels = np.array([[0, 1], [1, 0]], np.uint8)
    if rule.ignores:
        labels[1, 1] = 255
    assert np.array_equal(rule.labels_shown(rule.shown(labels)), labels)


def test_a_volume_ends_where_a_slice_is_missing(cells: Workspace, run: Record) -> None:
    slices = load_dataset(cells, "cells").slices
    items = [_Kept(run, "cells", "test", item.id) for item in slices]
    places = _places(cells, "cells")
    whole = [len(volume) for volume in _volumes(items, places)]
    assert max(whole) > 2
    assert sum(whole) == len(items)
    assert [len(volume) for volume in _volumes(items[::2], places)] == [1] * len(items[::2])
    # Of a dataset that has gone nobody knows what follows what.
    assert _places(cells, "nothing") == {}
    assert [len(volume) for volume in _volumes(items, {})] == [1] * len(items)
