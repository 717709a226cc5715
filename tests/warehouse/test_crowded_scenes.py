"""Each value stands at the row, column, panel and colour that name it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import polars as pl
import pytest
from scene import PAGE, Mark, Plot, Scene

from emcache_warehouse.charts.cost import cost_chart
from emcache_warehouse.charts.curves import curves_chart
from emcache_warehouse.charts.gap import gap_chart
from emcache_warehouse.charts.iou import iou_chart
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.paper import paper_rows, score_chart, table_chart
from emcache_warehouse.charts.pca import pca_chart
from emcache_warehouse.charts.theme import PALETTE
from emcache_warehouse.charts.transfer import transfer_chart

DOMAINS = ("vnc", "vnc:stack2", "lucchi++", "a dataset with a rather long name")

# Datasets in the order in which they are added, which is not that of the alphabet.
DATASETS = ("vnc", "lucchi++", "a dataset with a rather long name", "fib")
COLOURS = dict(zip(DATASETS, PALETTE, strict=False))
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"precision": "bfloat16"},
    {"longest_edge": 518},
    {"backbone": "dinov2-large", "weights": "pretrained"},
    {"regime": "lora", "protocol": "paper"},
)


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


def features_panel(drawn: Scene, row: dict[str, Any], *, several: bool) -> Plot:
    """The panel whose title says how the features of a measurement were made."""
    words = [row["backbone"], row["weights"], f"{row['longest_edge']} px"]
    return drawn.plot(*words, *([row["precision"]] if several else []))


def check_gaps(rows: pl.DataFrame) -> None:
    """Every distance stands once, in its panel, at its two domains, grey where it is unclear."""
    chart = gap_chart(rows)
    drawn = Scene(chart)
    several = rows["recipe_sha256"].n_unique() > 1
    assert len(drawn.plots) == rows["recipe_sha256"].n_unique()
    for row in rows.iter_rows(named=True):
        panel = features_panel(drawn, row, several=several)
        words = [
            short(row["frechet"]),
            f"{short(row['frechet_low'])} to {short(row['frechet_high'])}",
        ]
        texts = [m for m in panel.marks if m.kind == "text" and m.text[:2] == words]
        (text,) = texts
        (cell,) = [m for m in panel.marks if m.kind == "rect" and m.holds(text)]
        assert {panel.row(cell), panel.column(cell)} == {row["domain_a"], row["domain_b"]}
        clear = row["frechet_low"] > max(row["frechet_within_a"], row["frechet_within_b"])
        assert (cell.fill != "#d7d9dc") == clear
    assert any(m.role.startswith("legend") for m in drawn.marks)
    assert drawn.width <= PAGE


def test_each_distance_stands_in_the_cell_of_its_pair(measured):
    rows = chart_rows("gap", measured.database)
    pairs = {frozenset(pair) for pair in rows.select("domain_a", "domain_b").rows()}
    assert pairs == set(map(frozenset, combinations(DOMAINS, 2)))
    assert rows.height == len(pairs)
    check_gaps(rows)


def test_each_distance_stands_in_the_panel_of_its_features(world):
    rows = chart_rows("gap", world.database)
    assert rows.height in (6, 24)
    check_gaps(rows)


@pytest.fixture(scope="module", params=[1, 20], ids=["one run", "twenty runs"])
def world(request, filled_once, tmp_path_factory):
    """One run on two datasets, or twenty: five settings on four datasets; for reading only."""
    made_up = type(filled_once)(tmp_path_factory.mktemp("world"))
    crowded = request.param == 20
    for name in DATASETS:
        made_up.dataset(name)
    settings = SETTINGS if crowded else SETTINGS[:1]
    for number, setting in enumerate(settings):
        named = {key: value for key, value in setting.items() if key in ("weights", "backbone")}
        recipe = f"{number}" * 64
        if setting.get("regime") != "lora":
            edge = setting.get("longest_edge", 266)
            sizes = (24, 25, 26, 27)
            made_up.gap(
                DATASETS,
                shift=3.0 + number,
                sizes=sizes,
                longest_edge=edge,
                recipe_sha256=recipe,
                **named,
            )
        for place, name in enumerate(DATASETS if crowded else DATASETS[:1]):
            features = f"{name}-{number}"
            made_up.extract(
                features,
                dataset=name,
                compute_seconds=3.0 + place + number,
                total_bytes=10**9 * (1 + place + 5 * number),
                recipe_sha256=recipe,
                precision=setting.get("precision", "float32"),
                **named,
            )
            iou = 0.15 + 0.15 * number + 0.03 * place
            run = made_up.train(
                (name,),
                place,
                counts=made_up.counts([name], 3, iou=iou),
                feature_sets=[features],
                n_train=10 + place,
                **setting,
            )
            made_up.evaluate(run, DATASETS[(place + 1) % 4], iou=iou / 2)
    made_up.sync()
    return made_up


def facts(row: dict[str, Any]) -> list[str]:
    """What tells a setting from the others, in the words of the charts."""
    return [
        str(row["backbone"]),
        str(row["weights"]),
        f"{row['longest_edge']} px",
        {"frozen": "frozen", "lora": "LoRA"}[row["regime"]],
        *str(row["protocol"]).removesuffix("]").split("["),
        str(row["precision"]),
    ]


def said(row: dict[str, Any], *places: str) -> bool:
    """Whether a label and the subtitle together name a row's setting."""
    everything = " ".join(" ".join(places).split())
    return all(fact in everything for fact in facts(row))


def test_each_score_is_a_bar_of_its_dataset_setting_and_panel(world):
    rows = chart_rows("iou", world.database)
    chart = iou_chart(rows)
    drawn = Scene(chart)
    assert rows.height in (2, 40)
    for row in rows.iter_rows(named=True):
        panel = drawn.plot(f"trained on {row['train_on']}")
        bars = [m for m in panel.marks if m.kind == "rect" and m.fill == COLOURS[row["eval_on"]]]
        (bar,) = [
            m
            for m in bars
            if abs(m.y - panel.y(row["iou_fg"])) < 0.6
            and abs(m.y + m.height - panel.y(0)) < 0.6
            and said(row, panel.column(m), drawn.subtitle)
        ]
        assert drawn.legend[row["eval_on"]].fill == bar.fill
    assert drawn.width <= PAGE


def test_each_loss_is_on_the_line_of_its_panel(world):
    rows = chart_rows("curves", world.database)
    chart = curves_chart(rows)
    drawn = Scene(chart)
    stroke = {name: symbol.stroke for name, symbol in drawn.legend.items()}
    assert len(set(stroke.values())) == 2
    assert len(drawn.plots) == rows["run_id"].n_unique() in (1, 20)
    panels: dict[str, Plot] = {}
    for row in rows.iter_rows(named=True):
        if row["run_id"] not in panels:
            (panels[row["run_id"]],) = [
                p
                for p in drawn.plots
                if f"trained on {row['train_on']}" in p.title and said(row, p.title, drawn.subtitle)
            ]
        panel = panels[row["run_id"]]
        for kind, column in (("training", "train_loss"), ("validation", "val_loss")):
            at = panel.at(row["epoch"], row[column], kind="line")
            assert stroke[kind] in {mark.stroke for mark in at}
    assert len({panel.title for panel in panels.values()}) == len(panels)
    assert drawn.width <= PAGE


def test_each_transfer_is_a_dot_at_its_distance_and_loss(world):
    rows = chart_rows("transfer", world.database)
    chart = transfer_chart(rows)
    drawn = Scene(chart)
    assert rows.height in (1, 16)
    names = drawn.legend
    for row in rows.iter_rows(named=True):
        panel = drawn.plot(f"trained on {row['train_on']}")
        dots = panel.at(
            row["frechet"], row["iou_drop"], kind="symbol", fill=COLOURS[row["eval_on"]]
        )
        (dot,) = dots
        assert names[row["eval_on"]].fill == dot.fill
        shapes = [n for n, m in names.items() if m.fill == "black" and m.shape == dot.shape]
        assert len(shapes) == (rows.height > 1)
        assert said(row, *shapes, drawn.subtitle)
    assert drawn.width <= PAGE


def test_each_slice_is_a_point_of_its_panel(world):
    rows = chart_rows("pca", world.database)
    chart = pca_chart(rows)
    drawn = Scene(chart)
    names = drawn.legend
    assert rows["gap_id"].n_unique() == len(drawn.plots) in (1, 4)
    for row in rows.iter_rows(named=True):
        panel = features_panel(drawn, row, several=rows["gap_id"].n_unique() > 1)
        look = {"fill": COLOURS[row["domain"]], "shape": names[row["domain"]].shape}
        assert panel.at(row["pc1"], row["pc2"], kind="symbol", **look)
    assert drawn.width <= PAGE


def names(label: str, row: dict[str, Any]) -> bool:
    """Whether a label is of a feature set: all that is said holds, and no two are alike."""
    dataset, facts = label.split("\n")
    backbone, size, *name = facts.split(", ")
    said = (dataset, backbone, size) == (
        row["dataset"],
        row["backbone"],
        f"{row['longest_edge']} px",
    )
    return said and all(row["feature_set"].endswith(part) for part in name)


def test_each_cost_is_a_bar_beside_its_feature_set(world):
    rows = chart_rows("cost", world.database)
    chart = cost_chart(rows)
    drawn = Scene(chart)
    seconds, size = drawn.plots
    assert rows.height in (1, 20)
    assert rows["backbone_seconds_saved"].min() > 0
    fills = {name: symbol.fill for name, symbol in drawn.legend.items()}
    assert len({label.words for label in seconds.y_labels}) == rows.height
    for row in rows.iter_rows(named=True):
        for panel, value, fill in (
            (seconds, row["extract_seconds"], fills["extraction"]),
            (seconds, row["backbone_seconds_saved"], fills["saved in training"]),
            (size, row["total_bytes"] / 1e9, PALETTE[2]),
        ):
            (bar,) = [m for m in panel.marks if m.fill == fill and names(panel.row(m), row)]
            assert abs(bar.x - panel.x(0)) < 1.1
            assert abs(bar.x + bar.width - panel.x(value)) < 1.1
    assert drawn.width <= PAGE


@pytest.mark.parametrize("table", [3, 8, None])
def test_each_cell_of_a_table_has_our_dot_in_its_row(world, table):
    rows = paper_rows(world.database, table)
    chart = table_chart(world.database, table) if table else score_chart(rows, "All")
    drawn = Scene(chart)
    names = drawn.legend
    labels_of_rows = drawn.plots[0].y_labels
    for row in rows.iter_rows(named=True):
        own = [row["train_on"], f"{row['train_on']} (the paper's paired figure)"]
        away = [f"{row['train_on']} tested on {row['eval_on']}"]
        titles = own if row["train_on"] == row["eval_on"] else away
        (panel,) = [p for p in drawn.plots if p.title in titles]
        paper = [
            m
            for m in panel.marks
            if m.shape == "diamond" and abs(m.x - panel.x(row["paper_iou_fg_mean"])) < 0.6
        ]
        cells = [nearest(m, labels_of_rows) for m in paper]
        words = [row["backbone"]]
        if rows["regime"].n_unique() > 1:
            words.append({"frozen": "frozen", "lora": "LoRA"}[row["regime"]])
        if row["sampling"] not in (None, "natural"):
            words.append(row["sampling"])
        assert ", ".join(words) in cells
        if row["iou_fg_mean"] is None:
            continue
        ours = [
            m
            for m in panel.marks
            if m.kind == "symbol"
            and m.shape == "circle"
            and abs(m.x - panel.x(row["iou_fg_mean"])) < 0.6
            and nearest(m, labels_of_rows) == ", ".join(words)
        ]
        (dot,) = ours
        named = [name for name, symbol in names.items() if symbol.fill == dot.fill]
        assert len(named) == 1
        assert said(row, *named, *words, drawn.subtitle, "frozen")
    assert drawn.width <= PAGE


def nearest(mark: Mark, rows: list[Mark]) -> str:
    return min(rows, key=lambda label: abs(label.y - mark.y)).words


def test_the_parameters_of_our_runs_stand_in_their_backbones_row(world):
    rows = paper_rows(world.database, 7)
    chart = table_chart(world.database, 7)
    drawn = Scene(chart)
    (panel,) = drawn.plots
    fills = {name: symbol.fill for name, symbol in drawn.legend.items()}
    ours = 0
    for row in rows.iter_rows(named=True):
        for column, fill in (
            ("head_only", fills["head alone"]),
            ("lora_plus_head", fills["head with LoRA"]),
        ):
            (bar,) = [m for m in panel.marks if m.fill == fill and panel.row(m) == row["backbone"]]
            assert abs(bar.x + bar.width - panel.x(row[column])) < 1.1
        for column in ("our_head_only", "our_lora_plus_head"):
            if row[column] is not None:
                ours += 1
                assert [
                    m
                    for m in panel.marks
                    if m.kind == "rect"
                    and m.fill == "black"
                    and panel.row(m) == row["backbone"]
                    and abs(m.x + m.width / 2 - panel.x(row[column])) < 1.1
                ]
    assert ours > 0
    assert drawn.width <= PAGE
