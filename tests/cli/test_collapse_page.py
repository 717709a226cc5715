"""The page on the collapse: its tables are those of the files, and the files agree."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest


@pytest.fixture
def page(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(checkout / "benchmarks")
    import collapse_distances
    import collapse_export
    import collapse_tables

    return SimpleNamespace(
        tables=collapse_tables, export=collapse_export, distances=collapse_distances
    )


def test_the_pages_tables_are_those_of_the_files(page: SimpleNamespace) -> None:
    text = page.tables.PAGE.read_text()
    tables = page.tables.tables()
    assert set(re.findall(r"<!-- (\w+) -->", text)) == {*tables, "end"}
    for name, table in tables.items():
        assert f"<!-- {name} -->\n{table}<!-- end -->" in text, name


def test_means_are_those_of_the_runs(page: SimpleNamespace) -> None:
    runs = pl.read_csv(page.tables.FOLDER / "runs.csv")
    scores = pl.read_csv(page.tables.FOLDER / "scores.csv")
    again = runs.group_by(page.export.CELL).agg(
        pl.col("iou_fg").mean().alias("mean"), pl.len().alias("n")
    )
    both = scores.join(again, on=page.export.CELL, how="full", validate="1:1", nulls_equal=True)
    assert both.height == scores.height == again.height
    assert np.allclose(both["iou"], both["mean"], atol=2e-4)
    assert (both["n_runs"] == both["n"]).all()


def test_distances_are_judged_by_their_pairs(page: SimpleNamespace) -> None:
    pairs = pl.read_csv(page.tables.FOLDER / "distance-pairs.csv")
    stored = pl.read_csv(page.tables.FOLDER / "distances.csv")
    again = page.distances.judge(pairs)
    assert stored["distance"].to_list() == again["distance"].to_list()
    for name in ("n_stack", "n_tissue", "n_microscope"):
        assert (stored[name] == again[name]).all()
    assert np.allclose(stored["auroc_stack"], again["auroc_stack"], atol=0.01)


def test_an_interval_over_blocks_is_that_of_the_formula(page: SimpleNamespace) -> None:
    rows = [
        {"seed": seed, "slice_id": f"test/{n}", "tp": 10 + n * (seed + 1), "fp": 5, "fn": 3 + n}
        for n in (10, 2, 1)
        for seed in (0, 1)
    ]
    n_blocks, (low, high) = page.export.over_blocks(pl.DataFrame(rows))
    assert n_blocks == 3

    def mean(left: tuple[int, ...]) -> float:
        ious = []
        for seed in (0, 1):
            tp = sum(10 + n * (seed + 1) for n in left)
            ious.append(tp / (tp + sum(8 + n for n in left)))
        return sum(ious) / 2

    without = np.array([mean((2, 10)), mean((1, 10)), mean((1, 2))])
    error = np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    # Student's t of two degrees of freedom, from a table.
    assert low == pytest.approx(max(0, mean((1, 2, 10)) - 4.3027 * error), abs=1e-4)
    assert high == pytest.approx(min(1, mean((1, 2, 10)) + 4.3027 * error), abs=1e-4)


def test_an_interval_over_seeds(page: SimpleNamespace) -> None:
    low, high = page.export.over_seeds(np.array([0.3, 0.4, 0.5]))
    assert (low, high) == pytest.approx((0.1516, 0.6484), abs=1e-4)
    assert page.export.over_seeds(np.array([0.3])) == (None, None)


def test_blocks_hold_neighbours_of_one_stack(page: SimpleNamespace) -> None:
    numbers = [*range(25), *range(28, 28 + 4 * 12, 4)]
    rows = pl.DataFrame(
        [
            {"dataset": "lucchi-all", "slice_id": f"train/{n}", "vector": [float(n)]}
            for n in reversed(numbers)
        ]
        + [{"dataset": "vnc", "slice_id": f"stack2/{n:02d}", "vector": [0.0]} for n in range(9)]
    )
    blocks = page.distances.cut(rows)
    assert [block.sample.vectors[:, 0].tolist() for block in blocks] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(28, 68, 4)),
    ]
    assert {(block.tissue, block.stack) for block in blocks} == {("lucchi", "lucchi-all train")}


def test_false_alarms_are_pairs_as_far_apart_as_microscopes(page: SimpleNamespace) -> None:
    values = {"stack": [1, 2, 5, 6], "tissue": [3, 9], "microscope": [5, 7]}
    pairs = pl.DataFrame(
        [
            {"distance": "d", "kind": kind, "value": float(value)}
            for kind, numbers in values.items()
            for value in numbers
        ]
    )
    (row,) = page.distances.judge(pairs).rows(named=True)
    assert (row["false_alarms_stack"], row["false_alarms_tissue"]) == (0.5, 0.5)
    assert row["auroc_stack"] == (3 + 4 - 0.5) / 8
    assert (row["n_stack"], row["median_microscope"]) == (4, 6)


def test_the_readme_opens_with_figures_of_the_files(checkout: Path, page: SimpleNamespace) -> None:
    opening = (checkout / "README.md").read_text().partition("## Two commands")[0]
    scores = page.tables.read_scores()
    both, wrong = "lucchi + vnc", "lucchi-wrong-train + vnc"
    right = page.tables.pick(scores, both, "lucchi")["iou"]
    assert f"scores\n{right:.2f} there" in opening
    assert right >= page.tables.pick(scores, "lucchi", "lucchi")["iou"]
    assert f"it scores {page.tables.pick(scores, wrong, 'lucchi-wrong')['iou']:.2f}." in opening
