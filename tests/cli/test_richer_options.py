"""Options of alignment and richer tokens through the command line, one beside the other."""

import shlex
from pathlib import Path

import pytest
from emcache_bench.synthetic import STYLES, write_domain

from emcache.data.register import add_dataset
from emcache.progress import Quiet

TINY = "--backbone tiny --weights random:0 --longest-edge 56"


@pytest.fixture
def two(run_anywhere, make_cells, tmp_path: Path):
    """Runs commands beside ``cells`` and ``other``, made up."""
    workspace = make_cells(tmp_path)
    write_domain(tmp_path / "other", STYLES["soft"], slices=10, size=84, seed=1)
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "other", "folder", tmp_path / "other", masked, Quiet())

    def run(*arguments: str):
        result = run_anywhere(*arguments, "--format", "json", cwd=workspace.root)
        assert result.code == 0, result
        return result

    return run


def test_every_option_reaches_the_protocol(two) -> None:
    options = "--tokens shift:2 --layers 1,2 --normalise clahe --align coral --penalty mmd"
    words = f"train-head cells other {TINY} {options} --epochs 1 --seeds 0"
    (row,) = two(*shlex.split(words)).json
    fields = "max_epochs=1, normalise=clahe, tokens=shift:2, layers=1+2, align=coral, penalty=mmd"
    assert row["protocol"] == f"paper[{fields}]"
    kept = two(
        "extract",
        "cells",
        *shlex.split(TINY),
        "--tokens",
        "shift:2",
        "--layers",
        "last2",
        "--normalise",
        "clahe",
    ).json
    assert [made["computed"] for made in kept] == [0, 0]


def test_a_few_labels_by_every_option(two) -> None:
    tokens = f"cells {TINY} --seeds 0"
    options = "--method forest --filters beside --trees 10 --scribbles 0.05 --from-slices 2"
    (row,) = two("few-label", *shlex.split(f"{tokens} {options} --threshold 0.4")).json
    fields = "head=forest-filters, scribbles=0.05, from_slices=2, trees=10, threshold=0.4"
    assert row["protocol"] == f"few-label[{fields}]"
    (row,) = two("few-label", *shlex.split(f"{tokens} --method linear --clicks 3")).json
    assert row["protocol"] == "few-label[head=logistic, clicks=3]"
    assert row["stopped_by"] == "fitted"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method knn --filters beside", "is for --method forest; found knn"),
        ("--clicks 3 --scribbles 0.1", "are three ways; expected one"),
        ("--annotations nowhere.csv", "there is no file or folder"),
        ("--method forrest", "forrest"),
    ],
)
def test_few_labels_that_cannot_be(
    run_anywhere, make_cells, tmp_path: Path, words: str, message: str
) -> None:
    workspace = make_cells(tmp_path)
    result = run_anywhere(
        "few-label", "cells", *shlex.split(f"{TINY} --seeds 0 {words}"), cwd=workspace.root
    )
    assert result.code != 0
    assert message in result.err
    assert "Traceback" not in result.err


def test_distances_after_alignment_and_from_a_training(two) -> None:
    words = f"train-lora cells {TINY} --last-blocks 1 --align batch-norm --epochs 1 --seeds 0"
    (row,) = two(*shlex.split(f"{words}")).json
    assert "lora_last_blocks=1" in row["protocol"]
    rows = two("gap", "--of", "other", "--run", row["run_id"]).json
    assert len(rows) == 10
    assert {"distance", "p_value", "outside"} <= set(rows[0])
    words = f"gap cells:test other:test {TINY} --align coral --align-to other"
    (row,) = two(*shlex.split(f"{words} --align-shrinkage 0.1")).json
    assert row["align"] == "coral to other, shrinkage 0.1"


def test_smaller_caches(two) -> None:
    names = [
        row["feature_set"] for row in two("extract", "cells", "other", *shlex.split(TINY)).json
    ]
    rows = two("cache", "convert", *names, "--dtype", "int8", "--pca", "8").json
    assert [row["source"] for row in rows] == names
    assert all("int8-pca8" in row["feature_set"] for row in rows)
    assert all(0 < row["explained"] <= 1 for row in rows)
    words = f"train-head cells {TINY} --dtype int8 --pca 8 --epochs 1 --seeds 0"
    (row,) = two(*shlex.split(words)).json
    assert row["epochs_run"] == 1
