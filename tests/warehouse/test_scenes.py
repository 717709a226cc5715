"""Each value stands at the row, column and colour that name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest
import vl_convert

from emcache_warehouse.charts.gap import gap_chart, gap_rows
from emcache_warehouse.charts.iou import iou_chart, iou_rows
from emcache_warehouse.charts.pca import pca_chart, pca_rows
from emcache_warehouse.charts.render import VEGA_LITE
from emcache_warehouse.charts.theme import PALETTE

DOMAINS = ("vnc", "vnc:stack2", "lucchi++", "a dataset with a rather long name")


@dataclass(frozen=True)
class Mark:
    """One item of the scene, in the coordinates of the whole picture."""

    kind: str
    role: str
    x: float
    y: float
    width: float
    height: float
    fill: str | None
    text: Any

    def holds(self, other: Mark) -> bool:
        """Whether another mark's anchor lies within this one."""
        return (
            self.x <= other.x <= self.x + self.width and self.y <= other.y <= self.y + self.height
        )


def marks(chart: Any) -> list[Mark]:
    """All marks of a chart."""
    scene = vl_convert.vegalite_to_scenegraph(chart.to_dict(validate=False), vl_version=VEGA_LITE)
    return list(_walk(scene["scenegraph"], 0.0, 0.0))


def _walk(mark: dict[str, Any], x: float, y: float) -> Iterator[Mark]:
    for item in mark.get("items", ()):
        left, top = x + (item.get("x") or 0.0), y + (item.get("y") or 0.0)
        yield Mark(
            mark["marktype"],
            mark.get("role") or "",
            left,
            top,
            item.get("width") or 0.0,
            item.get("height") or 0.0,
            item.get("fill") if isinstance(item.get("fill"), str) else None,
            item.get("text"),
        )
        if mark["marktype"] == "group":
            for child in item.get("items", ()):
                yield from _walk(child, left, top)


def labels(drawn: list[Mark], text: str) -> list[Mark]:
    return [m for m in drawn if m.role == "axis-label" and m.text in (text, [text])]


def short(value: float) -> str:
    """Three digits, as the cells have them."""
    return f"{value:.0f}" if abs(value) >= 100 else str(float(f"{value:.3g}"))


@pytest.fixture(scope="module")
def measured(filled_once, tmp_path_factory):
    """Four domains in an order that is not the alphabet's, and one pair measured the other way."""
    made_up = type(filled_once)(tmp_path_factory.mktemp("scene"))
    made_up.gap(DOMAINS, shift=4.0, sizes=(24, 24, 24, 24))
    made_up.gap((DOMAINS[2], DOMAINS[0]), shift=8.0, sizes=(24, 24))
    made_up.sync()
    return made_up


def test_each_distance_stands_in_the_cell_of_its_pair(measured):
    rows = gap_rows(measured.database)
    drawn = marks(gap_chart(rows))
    cells = [m for m in drawn if m.kind == "rect" and m.role == "mark" and m.width > 40]
    texts = [m for m in drawn if m.kind == "text" and isinstance(m.text, list) and m.role == "mark"]
    newest = {
        frozenset((row["domain_a"], row["domain_b"])): row
        for row in rows.sort("gap_id").iter_rows(named=True)
    }
    assert len(newest) == len(list(combinations(DOMAINS, 2))) == 6
    for pair, row in newest.items():
        words = [
            short(row["frechet"]),
            f"{short(row['frechet_low'])} to {short(row['frechet_high'])}",
        ]
        found = [text for text in texts if text.text[:2] == words]
        assert len(found) == 1, (pair, words, [text.text for text in texts])
        (cell,) = [cell for cell in cells if cell.holds(found[0])]
        below = {
            name
            for name in pair
            for label in labels(drawn, name)
            if cell.x <= label.x <= cell.x + cell.width
        }
        beside = {
            name
            for name in pair
            for label in labels(drawn, name)
            if cell.y <= label.y <= cell.y + cell.height
        }
        assert len(below) == len(beside) == 1
        assert below | beside == pair
        clear = row["frechet_low"] > max(row["frechet_within_a"], row["frechet_within_b"])
        assert (cell.fill != "#d7d9dc") == clear
    assert any(m.role.startswith("legend") for m in drawn)


def test_arithmetic_makes_bars_of_its_own(made_up):
    for precision in ("float32", "bfloat16"):
        for seed in (0, 1):
            made_up.train(("vnc",), seed, precision=precision)
    made_up.sync()
    drawn = marks(iou_chart(iou_rows(made_up.database)))
    bars = [m for m in drawn if m.kind == "rect" and m.role == "mark" and m.height > 20]
    assert len(bars) == 2
    for precision in ("float32", "bfloat16"):
        assert labels(drawn, precision)


def test_a_dataset_has_one_colour_in_all_charts(made_up):
    """Datasets in the order in which they were added, which is not that of the alphabet."""
    names = ["vnc", "lucchi++", "fib"]
    for name in names:
        made_up.dataset(name)
    run = made_up.train(("lucchi++",), 0)
    made_up.evaluate(run, "fib")
    made_up.gap(domains=("fib", "vnc"))
    made_up.sync()
    palette = dict(zip(names, PALETTE, strict=False))
    for chart, column in (
        (iou_chart(iou_rows(made_up.database)), "test"),
        (pca_chart(pca_rows(made_up.database)), "domain"),
    ):
        drawn = {row[column]: row["colour"] for row in chart.datasets["rows"]}
        fills = {mark.fill for mark in marks(chart) if mark.role == "mark"}
        for name, colour in drawn.items():
            assert colour == palette[name]
            assert colour in fills


def test_older_measurements_of_other_datasets_have_panels_of_their_own(made_up):
    for name in ("vnc", "lucchi++", "fib"):
        made_up.dataset(name)
    made_up.gap(domains=("vnc", "lucchi++"))
    made_up.gap(domains=("fib", "vnc"))
    made_up.gap(domains=("fib", "vnc"))
    made_up.sync()
    rows = pca_chart(pca_rows(made_up.database)).datasets["rows"]
    assert len({row["gap_id"] for row in rows}) == 2
    assert len({row["panel"] for row in rows}) == 2
    assert {row["panel"].rpartition(": ")[2] for row in rows} == {"fib, vnc", "lucchi++, vnc"}
