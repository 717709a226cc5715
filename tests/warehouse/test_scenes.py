"""What charts draw of a few records: bars, colours, panels, the cells of an audit."""

from __future__ import annotations

import math

import polars as pl
from scene import PAGE, Scene

from emcache.storage.records import new_record
from emcache_warehouse.charts.audit import audit_chart, audit_rows
from emcache_warehouse.charts.bench import bench_chart, bench_rows
from emcache_warehouse.charts.custom import mark_chart
from emcache_warehouse.charts.gap import gap_chart
from emcache_warehouse.charts.iou import iou_chart
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.pca import pca_chart
from emcache_warehouse.charts.theme import PALETTE


def test_arithmetic_makes_bars_of_its_own(made_up):
    for precision in ("float32", "bfloat16"):
        for seed in (0, 1):
            made_up.train(("vnc",), seed, precision=precision)
    made_up.sync()
    drawn = Scene(iou_chart(chart_rows("iou", made_up.database)))
    bars = [m for m in drawn.marks if m.kind == "rect" and m.role == "mark" and m.height > 20]
    assert len(bars) == 2
    for precision in ("float32", "bfloat16"):
        assert drawn.labels(precision)


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
        (iou_chart(chart_rows("iou", made_up.database)), "test"),
        (pca_chart(chart_rows("pca", made_up.database)), "domain"),
    ):
        drawn = {row[column]: row["colour"] for row in chart.datasets["rows"]}
        fills = {mark.fill for mark in Scene(chart).marks if mark.role == "mark"}
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
    rows = pca_chart(chart_rows("pca", made_up.database)).datasets["rows"]
    assert len({row["gap_id"] for row in rows}) == 2
    assert len({row["panel"] for row in rows}) == 2
    assert {row["panel"].rpartition(": ")[2] for row in rows} == {"fib, vnc", "lucchi++, vnc"}


def test_every_fit_of_an_audit_stands_at_its_image_and_mask(made_up):
    ids = [f"a rather long name of a slice {place}" for place in range(6)]
    scores = [
        {
            "image": image,
            "mask": mask,
            "score": float((3 * a + 5 * b) % 7) / 7,
            "declared": a == b,
            "assigned": (a + 1) % 6 == b,
        }
        for a, image in enumerate(ids)
        for b, mask in enumerate(ids)
    ]
    with new_record(made_up.runs, "audit") as draft:
        draft.config = {
            "dataset": "vnc",
            "verdict": "fail",
            "checks": [],
            "pairing": {"own_mask_wins": 0.0, "displaced": {}, "undecided": [], "examined": 6},
            "audit_key": "key",
        }
        draft.write_table("audit_scores.parquet", pl.DataFrame(scores))
    made_up.sync()
    rows = audit_rows(made_up.database, "vnc")
    chart = audit_chart(rows)
    drawn = Scene(chart)
    (panel,) = drawn.plots
    cells = {(panel.row(m), panel.column(m)): m for m in panel.marks if m.kind == "rect"}
    assert len(cells) == rows.height == 36
    by_score: dict[float, set[str | None]] = {}
    for row in rows.iter_rows(named=True):
        cell = cells[row["image"], row["mask"]]
        by_score.setdefault(row["score"], set()).add(cell.fill)
        rings = [m for m in panel.marks if m.kind == "symbol" and cell.holds(m)]
        assert len(rings) == row["assigned"]
    # Equal scores have one colour, and a better fit is darker.
    darkness = [brightness(*by_score[score]) for score in sorted(by_score)]
    assert darkness == sorted(darkness, reverse=True)
    assert len(set(darkness)) == 7
    assert drawn.width <= PAGE


def brightness(fill: str | None) -> int:
    assert fill is not None
    if fill.startswith("#"):
        return sum(bytes.fromhex(fill[1:]))
    return sum(int(part) for part in fill.strip("rgb()").split(","))


def test_points_of_a_query_stand_at_their_numbers():
    rows = pl.DataFrame({"epoch": [1, 2, 3, 10], "loss": [0.9, 0.5, 0.45, -0.2]})
    (panel,) = Scene(mark_chart(rows, "point", "epoch", "loss")).plots
    for x, y in rows.rows():
        assert len(panel.at(x, y, kind="symbol")) == 1


def test_bars_of_a_query_stand_above_their_names():
    names = ["vnc", "lucchi++", "a dataset with a rather long name"]
    rows = pl.DataFrame({"dataset": names, "slices": [20, 165, 7]})
    (panel,) = Scene(mark_chart(rows, "bar", "dataset", "slices")).plots
    bars = {panel.column(m): m for m in panel.marks if m.kind == "rect"}
    assert list(bars) == names
    for name, value in rows.rows():
        assert abs(bars[name].y - panel.y(value)) < 0.6


def test_each_benchmark_is_a_dot_beside_its_name(made_up):
    """Whatever their order by name, by ratio and by verdict."""
    facts = {
        "help": (3.0, "<= 4", "pass"),
        "audit": (9.0, "<= 3", "fail"),
        "epoch": (5.0, ">= 4", "pass"),
    }
    benchmarks = [
        {
            "name": name,
            "question": name,
            "ratio": ratio,
            "low": ratio * 0.9,
            "high": ratio * 1.1,
            "unit": "ratio",
            "target": target,
            "verdict": verdict,
            "device": "cpu",
            "note": "",
            "times": [{"what": name, "seconds": [0.1]}],
        }
        for name, (ratio, target, verdict) in facts.items()
    ]
    growth = {"stage": ["audit", "audit"], "n_slices": [10, 100], "seconds": [0.1, 0.9]}
    with new_record(made_up.runs, "bench") as draft:
        draft.config = {"machine": "a machine", "quick": False}
        draft.write_table("benchmarks.parquet", pl.DataFrame(benchmarks))
        draft.write_table("benchmark_growth.parquet", pl.DataFrame(growth))
    made_up.sync()
    drawn = Scene(bench_chart(bench_rows(made_up.database)))
    panel = drawn.plots[0]
    ticks = [(math.log(float(label.words)), label.x) for label in panel.x_labels if label.words]
    (first, left), (last, right) = min(ticks), max(ticks)
    beyond = {"help": 4 / 3, "audit": 3 / 9, "epoch": 5 / 4}
    dots = {panel.row(m).partition(":")[0]: m for m in panel.marks if m.kind == "symbol"}
    assert set(dots) == set(facts)
    for name, (ratio, target, verdict) in facts.items():
        share = (math.log(beyond[name]) - first) / (last - first)
        assert abs(dots[name].x - (left + share * (right - left))) < 1
        assert dots[name].fill == drawn.legend[verdict].fill
        assert panel.row(dots[name]) == f"{name}: {ratio} (target {target})"


def test_each_pair_has_a_dot_for_each_regime(made_up):
    run = made_up.train(("vnc",), 0, regime="lora")
    names = ("vnc", "lucchi++", "fib")
    made_up.gap(names, shift=3.0)
    made_up.gap(names, "lora", run.id, shift=1.0)
    made_up.sync()
    rows = chart_rows("gap", made_up.database)
    drawn = Scene(gap_chart(rows))
    panel = drawn.plots[-1]
    words = {"frozen": "frozen", "lora": "LoRA"}
    for row in rows.iter_rows(named=True):
        (dot,) = [
            m
            for m in panel.marks
            if m.kind == "symbol" and abs(m.y - panel.y(row["frechet"])) < 0.6
        ]
        assert panel.column(dot) == words[row["regime"]]
        assert dot.fill == drawn.legend[f"{row['domain_a']} and {row['domain_b']}"].stroke
    assert rows.height == 6
    assert len({m.fill for m in panel.marks if m.kind == "symbol"}) == 3
