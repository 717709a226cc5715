"""A few labelled points: drawn or given, fitted, scored and used like any other run."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import load_dataset
from emcache.errors import EmcacheError, UsageError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.models.heads import FittedKind
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.annotations import drawn_clicks, drawn_scribbles, read_annotations
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import find_protocol
from emcache.training.run import train

KINDS = FittedKind.__args__
TINY = FeatureRequest("tiny", "random:0", 70)


def fit(workspace: Workspace, annotations: Path | None = None, **fields: object) -> Record:
    given = {"regime": fields.pop("regime", "few-label"), "seeds": [fields.pop("seed", 0)]}
    protocol = find_protocol("few-label").with_changes(fields)
    request = TrainingRequest(
        datasets=["cells"], features=TINY, protocol=protocol, annotations=annotations, **given
    )
    (record,) = train(workspace, request, Quiet())
    return record


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_trains_evaluates_and_predicts(
    cells: Workspace, tmp_path: Path, kind: str
) -> None:
    run = fit(cells, head=kind, scribbles=0.1, from_slices=2, trees=10)
    own = pl.read_parquet(run.file("slice_metrics.parquet"))
    evaluated = evaluate_run(cells, run.id, ["cells:test"], EvaluationOptions(), Quiet())
    assert pl.read_parquet(evaluated.file("slice_metrics.parquet")).equals(own)
    assert own["tp"].sum() + own["fp"].sum() > 0
    item = next(s for s in load_dataset(cells, "cells").labelled if s.split == "test")
    files, _ = predict(
        cells, run.id, [item.image.path], tmp_path / "out", PredictionOptions(), Quiet()
    )
    mask = np.asarray(Image.open(tmp_path / "out" / f"{item.image.path.stem}.png"))
    assert mask.shape == (item.height, item.width)
    assert files


def test_the_record_says_what_it_was_given(cells: Workspace) -> None:
    run = fit(cells, clicks=7, from_slices=3)
    config = run.config
    assert config["regime"] == "few-label"
    assert config["protocol"] == "few-label[clicks=7, from_slices=3]"
    assert (config["annotated_slices"], config["labelled_pixels"], config["clicks"]) == (3, 14, 7)
    used = pl.read_parquet(run.file("training_slices.parquet"))
    assert used["part"].to_list() == ["train"] * 3
    assert [f"cells/{name}" for name in used["slice_id"]] == config["train_slices"]
    assert config["stopped_by"] == "fitted"
    assert pl.read_parquet(run.file("epochs.parquet")).height == 0
    again, other = fit(cells, clicks=7, from_slices=3), fit(cells, clicks=7, from_slices=3, seed=1)
    rows = [pl.read_parquet(r.file("slice_metrics.parquet")) for r in (run, again, other)]
    assert rows[0].equals(rows[1])
    assert config["run_fingerprint"] == again.config["run_fingerprint"]
    assert other.config["run_fingerprint"] != config["run_fingerprint"]


def test_clicks_lie_in_their_class() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:9, 10:20] = 1
    mask[20:, :] = 255
    points = drawn_clicks(mask, 12, np.random.default_rng(0), "a")
    cells = (points.places * mask.shape).astype(int)
    assert (mask[cells[:, 0], cells[:, 1]] == points.foreground).all()
    assert points.foreground.sum() == 12 == len(points.foreground) / 2
    assert len({tuple(cell) for cell in cells.tolist()}) == 24, "no pixel twice"
    with pytest.raises(UsageError, match="slice a has 40 pixels of foreground, and 41 clicks"):
        drawn_clicks(mask, 41, np.random.default_rng(0), "a")


def test_scribbles_stay_in_their_class_and_are_strokes() -> None:
    row, col = np.mgrid[:200, :200]
    mask = ((row - 90) ** 2 + (col - 80) ** 2 < 2500).astype(np.uint8)
    points = drawn_scribbles(mask, 0.01, np.random.default_rng(0))
    cells = (points.places * mask.shape).astype(int)
    assert (mask[cells[:, 0], cells[:, 1]] == points.foreground).all()
    assert len(points.foreground) == 400
    assert points.foreground.sum() == 200
    steps = np.abs(np.diff(cells, axis=0)).max(axis=1)
    assert (steps == 1).mean() > 0.8, "neighbours follow one another"
    few = np.zeros((200, 200), np.uint8)
    few[3, 3:6] = 1
    assert drawn_scribbles(few, 0.5, np.random.default_rng(0)).foreground.sum() == 3


def test_a_table_and_an_image_of_the_same_points_are_one(cells: Workspace, tmp_path: Path) -> None:
    slices = [s for s in load_dataset(cells, "cells").labelled if s.split == "train"]
    item = slices[0]
    marks = [(2, 3, 2), (10, 12, 1), (item.height - 1, item.width - 1, 1), (4, 60, 2)]
    table = tmp_path / "points.csv"
    words = {1: "background", 2: "foreground"}
    lines = [f"{item.id},{row},{col},{words[label]}" for row, col, label in marks]
    table.write_text("\n".join(["slice,row,col,label", *lines]))
    labels = np.zeros((item.height, item.width), np.uint8)
    for row, col, label in marks:
        labels[row, col] = label
    folder = tmp_path / "labels"
    folder.mkdir()
    Image.fromarray(labels).save(folder / f"{item.id}.png")
    found = [read_annotations(path, slices) for path in (table, folder, folder / f"{item.id}.png")]
    for one in found:
        ((name, points),) = one.items()
        assert name == item.id
        order = np.lexsort(points.places.T)
        first = np.lexsort(found[0][item.id].places.T)
        assert np.array_equal(points.places[order], found[0][item.id].places[first])
        assert np.array_equal(points.foreground[order], found[0][item.id].foreground[first])
    by_table, by_image = (fit(cells, path, head="knn") for path in (table, folder))
    rows = [pl.read_parquet(run.file("slice_metrics.parquet")) for run in (by_table, by_image)]
    assert rows[0].equals(rows[1])
    assert by_table.config["protocol"].startswith("few-label[annotations=points.csv@")
    assert by_table.config["labelled_pixels"] == 4
    table.write_text(table.read_text().replace("10,12", "11,12"))
    moved = fit(cells, table, head="knn")
    assert moved.config["run_fingerprint"] != by_table.config["run_fingerprint"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("slice,row,col\n", "has no column label; expected slice, row, col, label"),
        ("slice,row,col,label\n", "has no points"),
        ("slice,row,col,label\nZ,1,1,foreground\n", "line 2 .* names slice 'Z'; expected a train"),
        ("slice,row,col,label\nNAME,1,1,fg\n", "line 2 .* has the label 'fg'; expected foreground"),
        ("slice,row,col,label\nNAME,x,1,foreground\n", "line 2 .* has row 'x' and col '1'"),
        ("slice,row,col,label\nNAME,1,nan,foreground\n", "line 2 .* outside the slice"),
        ("slice,row,col,label\nNAME,1,1,background\nNAME,999,1,foreground\n", "line 3 .* outside"),
        ("slice,row,col,label\nNAME,1,1,background\n", "no annotated point is foreground"),
    ],
)
def test_tables_that_cannot_be(
    cells: Workspace, tmp_path: Path, content: str, message: str
) -> None:
    name = next(s.id for s in load_dataset(cells, "cells").labelled if s.split == "train")
    (tmp_path / "points.csv").write_text(content.replace("NAME", name))
    with pytest.raises(UsageError, match=message):
        fit(cells, tmp_path / "points.csv")


def test_images_that_cannot_be(cells: Workspace, tmp_path: Path) -> None:
    slices = load_dataset(cells, "cells").labelled
    item = next(s for s in slices if s.split == "train")
    test = next(s for s in slices if s.split == "test")
    folder = tmp_path / "labels"
    with pytest.raises(UsageError, match="there is no file or folder"):
        fit(cells, folder)
    folder.mkdir()
    with pytest.raises(UsageError, match="there are no annotations at"):
        fit(cells, folder)
    path = folder / f"{item.id}.png"
    Image.fromarray(np.full((5, 5), 2, np.uint8)).save(path)
    with pytest.raises(UsageError, match=r"has 5 x 5 pixels, and slice .* expected labels of the"):
        fit(cells, folder)
    Image.fromarray(np.full((item.height, item.width), 3, np.uint8)).save(path)
    with pytest.raises(UsageError, match="has the value 3; expected 0 for unlabelled"):
        fit(cells, folder)
    path.rename(folder / f"{test.id}.png")
    with pytest.raises(UsageError, match="has the name of 0 training slices"):
        fit(cells, folder)


def test_what_cannot_be_fitted(cells: Workspace) -> None:
    with pytest.raises(UsageError, match="points were to be drawn in 99; choose fewer"):
        fit(cells, from_slices=99)
    with pytest.raises(UsageError, match="clicks were to be drawn there"):
        fit(cells, clicks=100_000)
    with pytest.raises(UsageError, match="knn is not one of this regime, which has deconv"):
        fit(cells, regime="frozen")
    with pytest.raises(UsageError, match="deconv is not one of this regime, which has pro"):
        fit(cells, head="deconv")
    protocol = find_protocol("few-label").with_changes({"annotations": "mine.csv"})
    request = TrainingRequest(
        datasets=["cells"], features=TINY, protocol=protocol, regime="few-label"
    )
    with pytest.raises(UsageError, match=r"has annotations mine\.csv, and no file of them"):
        train(cells, request, Quiet())
    with pytest.raises(EmcacheError, match="threshold cannot be"):
        fit(cells, threshold=1.0)
