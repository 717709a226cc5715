"""What a run has learned from, and whether it learned anything."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import Dataset, load_dataset
from emcache.data.register import add_dataset
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.counts import Counts, constant_prediction, nothing_learned
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache.training.scoring import Seen, seen_by

MASKED = {"images": "images/*.png", "masks": "masks/*.png"}


def train(workspace: Workspace) -> Record:
    protocol = Protocol(head="linear", learning_rate=1e-2, max_epochs=6)
    request = FeatureRequest("tiny", "random:0", 70)
    (record,) = run_training(
        workspace,
        TrainingRequest(datasets=["cells"], features=request, seeds=[0], protocol=protocol),
        Quiet(),
    )
    return record


def pixels(dataset: Dataset, *places: int) -> frozenset[str]:
    return frozenset(dataset.slices[place].pixel_sha256 for place in places)


def test_distances_count_places_to_the_nearest_seen_slice(cells: Workspace) -> None:
    dataset = load_dataset(cells, "cells")
    distances = Seen(pixels(dataset, 2, 7)).distances(dataset)
    assert list(distances) == [item.id for item in dataset.slices]
    assert list(distances.values()) == [2, 1, 0, 1, 2, 2, 1, 0, 1, 2]
    by_name = Seen(frozenset(), frozenset({f"cells/{dataset.slices[0].id}"})).distances(dataset)
    assert list(by_name.values()) == list(range(10))
    assert set(Seen(frozenset()).distances(dataset).values()) == {None}


def test_another_folder_is_another_stack(workspace: Workspace, cells_root: Path) -> None:
    for kind in ("images", "masks"):
        for folder, names in (("a", "01234"), ("b", "56789")):
            (cells_root / folder / kind).mkdir(parents=True)
            for path in sorted((cells_root / kind).iterdir()):
                if path.stem[-1] in names:
                    path.rename(cells_root / folder / kind / path.name)
    globs = {"images": "*/images/*.png", "masks": "*/masks/*.png"}
    dataset, _ = add_dataset(workspace, "two", "folder", cells_root, globs, Quiet())
    distances = Seen(pixels(dataset, 4)).distances(dataset)
    assert list(distances.values()) == [4, 3, 2, 1, 0, None, None, None, None, None]


def test_the_same_pixels_under_another_name_are_seen(
    cells: Workspace, cells_root: Path, listener
) -> None:
    run = train(cells)
    table = pl.read_parquet(run.file("training_slices.parquet"))
    counts = dict(table.group_by("part").len().iter_rows())
    assert counts == {"train": run.config["n_train"], "validation": run.config["n_val"]}
    assert seen_by(run).pixels == set(table["pixel_sha256"])

    add_dataset(cells, "again", "folder", cells_root, {**MASKED, "split": ["test=*"]}, Quiet())
    evaluation = evaluate_run(cells, run.id, ["again"], EvaluationOptions(), listener)
    rows = pl.read_parquet(evaluation.file("slice_metrics.parquet"))
    seen = set(rows.filter(pl.col("slices_from_training") == 0)["slice_id"])
    assert seen == set(table["slice_id"])
    # A test slice of the training lies in the same stack.
    assert rows.filter(~pl.col("slice_id").is_in(seen))["slices_from_training"].min() == 1
    said = f"has learned from the pixels of {len(seen)} of 10 slices"
    assert any(said in line and "are not test" in line for line in listener.lines)

    own = pl.read_parquet(run.file("slice_metrics.parquet"))
    assert 0 not in own["slices_from_training"].to_list()


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "tn", "reason"),
    [
        (0, 0, 50, 950, "no foreground"),
        (50, 950, 0, 0, "nothing but foreground"),
        (1, 60, 49, 890, "calling every pixel foreground"),
        (5, 900, 45, 50, "calling every pixel foreground"),
        (10, 60, 40, 890, None),
        # Dense labels: an IoU of 0.88 of what covers 0.9, which is not chance.
        (850, 65, 50, 35, None),
        (895, 99, 5, 1, "calling every pixel background"),
        (0, 3, 0, 997, None),
        (997, 0, 3, 0, None),
    ],
)
def test_a_constant_prediction_is_named(
    tp: int, fp: int, fn: int, tn: int, reason: str | None
) -> None:
    found = constant_prediction(Counts(tp, fp, fn, tn))
    assert found is None if reason is None else reason in (found or "")


def rows(**datasets: tuple[int, int, int, int]) -> list[dict[str, object]]:
    return [
        {"eval_on": name, "class": "foreground", "tp": tp, "fp": fp, "fn": fn, "tn": tn}
        for name, (tp, fp, fn, tn) in datasets.items()
    ]


def test_a_run_has_learned_nothing_only_if_it_fails_on_every_dataset() -> None:
    none, some, moving = (0, 0, 50, 950), (30, 10, 20, 940), [(0.9 / n, 0.8 / n) for n in (1, 2, 3)]
    assert nothing_learned(rows(a=none), moving) == "it predicts no foreground"
    assert nothing_learned(rows(a=none, b=none), moving) == "it predicts no foreground"
    assert nothing_learned(rows(a=none, b=some), moving) is None
    both = nothing_learned(rows(a=none, b=(50, 950, 0, 0)), moving)
    assert both == "a: it predicts no foreground; b: it predicts nothing but foreground"
    still = [(0.95, 0.96)] * 6
    assert "did not move from epoch 2 to epoch 6" in (nothing_learned(rows(a=some), still) or "")
    assert nothing_learned(rows(a=some), still[:2]) is None


def test_a_training_that_came_to_nothing_says_so_and_so_do_its_masks(
    cells: Workspace, cells_root: Path, tmp_path: Path, listener
) -> None:
    protocol = Protocol(head="linear", learning_rate=1e-12, max_epochs=2)
    request = FeatureRequest("tiny", "random:0", 70)
    options = {"seeds": [0], "protocol": protocol}
    (run,) = run_training(
        cells, TrainingRequest(datasets=["cells"], features=request, **options), listener
    )
    reason = run.config["nothing_learned"]
    counts = pl.read_parquet(run.file("slice_metrics.parquet"))
    tp, fp, fn, tn = (counts[name].sum() for name in ("tp", "fp", "fn", "tn"))
    assert reason == constant_prediction(Counts(tp, fp, fn, tn)) is not None
    assert any(f"seed 0 learned nothing: {reason}; try" in line for line in listener.lines)
    listener.lines.clear()
    images = sorted((cells_root / "images").iterdir())[:1]
    predict(cells, run.id, images, tmp_path / "out", PredictionOptions(), listener)
    assert any("learned nothing" in line and "choose another" in line for line in listener.lines)
