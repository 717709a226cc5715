"""Charts are pure functions of rows, and files that need nothing else."""

from __future__ import annotations

import io
import json
import re
from datetime import date

import polars as pl
import pytest
from PIL import Image

from emcache.errors import UsageError, WarehouseError
from emcache.storage.records import new_record
from emcache_warehouse.charts.audit import audit_chart, audit_rows, worst_slices
from emcache_warehouse.charts.curves import curves_chart
from emcache_warehouse.charts.custom import MARKS, mark_chart
from emcache_warehouse.charts.iou import iou_chart
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.paper import (
    PARAMETER_TABLE,
    SCORE_TABLES,
    paper_rows,
    score_chart,
    table_chart,
)
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.charts.setups import describe_setups
from emcache_warehouse.query import run_query


def rows_of(chart):
    return chart.datasets["rows"]


def subtitle(chart):
    return " | ".join(chart.to_dict()["title"]["subtitle"])


def marks(spec):
    """Every mark of a specification, however deeply nested."""
    if isinstance(spec, dict):
        if "mark" in spec:
            yield spec["mark"]["type"], spec
        for value in spec.values():
            yield from marks(value)
    if isinstance(spec, list):
        for value in spec:
            yield from marks(value)


@pytest.fixture(scope="module")
def studied(filled_once, tmp_path_factory):
    """Two backbones, two kinds of training data, two seeds; for reading only."""
    made_up = type(filled_once)(tmp_path_factory.mktemp("studied"))
    for backbone in ("dinov2-small", "dinov2-large"):
        for sources in (("vnc",), ("lucchi++", "vnc")):
            for seed in (0, 1):
                made_up.train(sources, seed, backbone=backbone, epochs=made_up.epochs(5))
    made_up.sync()
    return made_up


# Foreground IoU


def test_the_iou_chart_draws_the_rows_it_is_given(studied):
    given = chart_rows("iou", studied.database)

    drawn = pl.DataFrame(rows_of(iou_chart(given)), infer_schema_length=None)

    assert drawn.select(given.columns).rows() == given.rows()
    assert given.height == 2 * (1 + 4) * 2


def test_the_iou_chart_has_bars_dots_whiskers_and_the_paper(studied):
    chart = iou_chart(chart_rows("iou", studied.database)).to_dict()

    panels = [panel for line in chart["vconcat"] for panel in line["hconcat"]]
    assert [panel["title"]["text"] for panel in panels] == [
        "trained on vnc",
        "trained on lucchi++ + vnc",
    ]
    for panel in panels:
        kinds = dict(marks(panel))
        assert set(kinds) == {"bar", "errorbar", "circle", "tick"}
        assert kinds["bar"]["encoding"]["y"]["aggregate"] == "mean"
        assert kinds["errorbar"]["mark"]["extent"] == "stdev"
        assert kinds["circle"]["encoding"]["y"]["field"] == "iou_fg"
        assert kinds["tick"]["encoding"]["y"]["field"] == "paper_iou_fg"
        assert kinds["bar"]["encoding"]["y"]["scale"]["domain"] == [0, 1]


def test_the_papers_figure_is_that_of_the_same_cell(studied):
    rows = chart_rows("iou", studied.database).filter(seed=0, backbone="dinov2-large")
    paper = {(row["train_on"], row["eval_on"]): row["paper_iou_fg"] for row in rows.to_dicts()}
    assert paper == {
        ("vnc", "vnc"): 0.723,
        ("lucchi++ + vnc", "vnc"): 0.661,
        ("lucchi++ + vnc", "lucchi++"): 0.007,
        # Printed in Tables 1 and 8; the first counts.
        ("lucchi++ + vnc", "macro"): 0.053,
        ("lucchi++ + vnc", "pooled"): 0.053,
    }


def test_the_subtitle_says_how_many_runs_and_whose_weights(studied):
    text = subtitle(iou_chart(chart_rows("iou", studied.database)))
    for fact in (
        "8 runs, 2 per bar",
        "weights: random:0 (untrained)",
        "longest edge 266 px",
        "protocol paper[max_epochs=3]",
        "frozen backbone",
    ):
        assert fact in text


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("weights", "pretrained"),
        ("longest_edge", 518),
        ("protocol", "paper"),
        ("regime", "lora"),
        ("sampling", "balanced"),
        ("audit_accepted", True),
    ],
)
def test_no_bar_mixes_setups(made_up, column, other):
    made_up.train(seed=0)
    made_up.train(seed=0, **{column: other})
    made_up.sync()

    chart = iou_chart(chart_rows("iou", made_up.database))

    assert len({row["setup"] for row in rows_of(chart)}) == 2
    assert "1 per bar" in subtitle(chart)


def test_no_bar_mixes_test_sets_of_different_size(made_up):
    made_up.train(n_slices=3)
    made_up.train(n_slices=4)
    made_up.sync()

    tests = {row["test"] for row in rows_of(iou_chart(chart_rows("iou", made_up.database)))}

    assert tests == {"vnc, 3 slices", "vnc, 4 slices"}


def test_what_is_common_to_all_setups_is_said_once(studied):
    setups = describe_setups(chart_rows("iou", studied.database))
    assert setups.order == ("dinov2-small", "dinov2-large")
    assert "weights: random:0 (untrained)" in setups.common


def test_no_test_scores_say_which_command_makes_some(made_up):
    made_up.sync()
    with pytest.raises(WarehouseError, match="emcache train-head"):
        iou_chart(chart_rows("iou", made_up.database))


# The paper's tables


@pytest.mark.parametrize("table", [*SCORE_TABLES, PARAMETER_TABLE])
def test_a_table_draws_the_rows_of_its_query(studied, table):
    given = paper_rows(studied.database, table)

    drawn = pl.DataFrame(rows_of(table_chart(studied.database, table)), infer_schema_length=None)

    assert drawn.select(given.columns).rows() == given.rows()
    assert given.height > 0


def test_every_cell_of_the_paper_is_in_one_table(studied):
    whole = paper_rows(studied.database)
    cells = ["paper_table", "backbone", "regime", "train_on", "eval_on", "sampling"]
    parts = pl.concat([paper_rows(studied.database, table) for table in SCORE_TABLES])

    assert set(parts.select(cells).rows()) == set(whole.select(cells).rows())
    assert len(set(whole.select(cells).rows())) == 60


def test_our_figures_stand_beside_theirs(studied):
    chart = score_chart(paper_rows(studied.database), "all")
    panels = [panel["title"]["text"] for panel in chart.to_dict()["hconcat"]]

    assert panels[:2] == ["lucchi++", "vnc"]
    assert panels[-1] == ["lucchi++ + vnc", "(the paper's paired figure)"]
    ours = [row for row in rows_of(chart) if row["iou_fg_mean"] is not None]
    # Two backbones on vnc, each also on both; the paper has the latter as one figure, against
    # which our macro and pooled stand, and for the large one per dataset too.
    assert sorted({row["series"] for row in ours}) == ["macro", "ours", "pooled"]
    assert "weights: random:0 (untrained)" in subtitle(chart)


def test_different_setups_of_ours_are_told_apart(made_up):
    for weights in ("random:0", "pretrained"):
        made_up.train(("vnc",), backbone="dinov2-large", weights=weights)
    made_up.sync()
    chart = table_chart(made_up.database, 1)

    series = {row["series"] for row in rows_of(chart) if row["iou_fg_mean"] is not None}
    assert series == {"random:0 (untrained)", "pretrained"}


def test_a_table_without_a_run_of_ours_is_the_papers(made_up):
    made_up.dataset()
    made_up.sync()
    chart = table_chart(made_up.database, 5)

    assert "0 of 6 cells run here" in subtitle(chart)
    assert dict(marks(chart.to_dict()))["point"]["encoding"]["x"]["field"] == "paper_iou_fg_mean"


def test_table_7_shows_what_our_runs_trained(made_up):
    made_up.train(backbone="dinov2-small", trainable_parameters=3_828_866)
    made_up.train(backbone="dinov2-small", regime="lora", trainable_parameters=4_271_234)
    made_up.train(
        backbone="dinov2-small", trainable_parameters=1538, protocol="paper[head=bn-linear, x=1]"
    )
    made_up.sync()
    rows = paper_rows(made_up.database, 7)

    small = rows.row(by_predicate=pl.col("backbone") == "dinov2-small", named=True)
    assert (small["our_head_only"], small["our_lora_plus_head"]) == (3.829, 4.271)
    assert (small["head_only"], small["lora_plus_head"]) == (3.829, 4.271)
    assert rows.height == 9


def test_a_table_that_the_paper_does_not_have(studied):
    with pytest.raises(UsageError, match=r"table 6 of the paper holds .*1, 2, 3, 4, 5, 7"):
        table_chart(studied.database, 6)


# Learning curves


def test_the_curves_are_the_epochs_of_every_run(studied):
    given = chart_rows("curves", studied.database)
    drawn = pl.DataFrame(rows_of(curves_chart(given)))

    for curve, column in (("training", "train_loss"), ("validation", "val_loss")):
        left = drawn.filter(curve=curve).select("run_id", "epoch", "loss").sort("run_id", "epoch")
        right = given.select("run_id", "epoch", column).sort("run_id", "epoch")
        assert left.rows() == right.rows()
    assert drawn["panel"].n_unique() == 4


def test_the_best_epoch_of_each_run_is_marked(studied):
    given = chart_rows("curves", studied.database)
    drawn = pl.DataFrame(rows_of(curves_chart(given)))

    best = drawn.filter(is_best=True, curve="validation")
    lowest = given.group_by("run_id").agg(pl.col("val_loss").min())

    assert best.height == 8
    assert sorted(best["loss"]) == sorted(lowest["val_loss"])


def test_a_single_epoch_is_a_point(made_up, tmp_path):
    made_up.train(epochs=made_up.epochs(1))
    made_up.sync()
    chart = curves_chart(chart_rows("curves", made_up.database))

    save_chart(chart, tmp_path / "curves.svg")

    assert "circle" in dict(marks(chart.to_dict()))
    assert {row["n_epochs"] for row in rows_of(chart)} == {1}


def test_long_runs_are_thinned_but_keep_first_best_and_last(made_up):
    for seed in range(8):
        made_up.train(seed=seed, epochs=made_up.epochs(1200))
    short = made_up.train(seed=8, epochs=made_up.epochs(12))
    made_up.sync()
    given = chart_rows("curves", made_up.database)

    chart = curves_chart(given)
    drawn = pl.DataFrame(rows_of(chart)).filter(curve="validation")

    assert drawn.height < given.height / 1.5
    assert "thinned" in subtitle(chart)
    assert drawn.filter(run_id=short.id).height == 12
    for run in drawn.partition_by("run_id"):
        assert run["is_best"].sum() == 1
        assert run["epoch"].min() == 1
        assert run["epoch"].max() in (12, 1200)


def test_losses_that_are_no_numbers_are_left_out(made_up):
    epochs = made_up.epochs(3).with_columns(val_loss=pl.Series([0.5, float("nan"), None]))
    made_up.train(epochs=epochs)
    made_up.sync()

    rows = rows_of(curves_chart(chart_rows("curves", made_up.database)))

    assert [row["loss"] for row in rows if row["curve"] == "validation"] == [0.5]


def test_no_epochs_say_which_command_makes_some(made_up):
    made_up.sync()
    with pytest.raises(WarehouseError, match="emcache train-head"):
        curves_chart(chart_rows("curves", made_up.database))


# Charts of any query

FRAME = pl.DataFrame(
    {
        "name": ["b", "a", "c"],
        "n": [1, 2, 3],
        "x": [0.5, float("nan"), 1.5],
        "day": [date(2026, 1, day) for day in (1, 2, 3)],
        "many": [[1], [2], [3]],
    }
)


@pytest.mark.parametrize("mark", MARKS)
def test_every_mark_draws_the_two_columns(mark):
    chart = mark_chart(FRAME, mark, "name", "n")

    assert rows_of(chart) == [{"x": "b", "y": 1}, {"x": "a", "y": 2}, {"x": "c", "y": 3}]
    spec = chart.to_dict()
    assert spec["mark"]["type"] == mark
    assert spec["encoding"]["x"]["title"] == "name"
    assert spec["encoding"]["y"]["title"] == "n"
    assert spec["encoding"]["x"]["sort"] is None


@pytest.mark.parametrize(
    ("x", "y", "kinds"),
    [
        ("day", "n", ("temporal", "quantitative")),
        ("x", "name", ("quantitative", "nominal")),
        ("n", "n", ("quantitative", "quantitative")),
    ],
)
def test_axes_are_of_their_columns_kind(x, y, kinds):
    encoding = mark_chart(FRAME, "point", x, y).to_dict()["encoding"]
    assert (encoding["x"]["type"], encoding["y"]["type"]) == kinds


def test_few_integers_below_bars_are_categories():
    assert mark_chart(FRAME, "bar", "n", "x").to_dict()["encoding"]["x"]["type"] == "ordinal"


def test_bars_over_the_same_category_are_not_summed():
    frame = pl.DataFrame({"seed": [0, 0], "iou": [0.5, 0.6]})
    chart = mark_chart(frame, "bar", "seed", "iou")
    assert chart.to_dict()["encoding"]["y"]["stack"] is None
    assert "drawn over each other" in subtitle(chart)


def test_rows_without_a_number_are_left_out():
    assert [row["y"] for row in rows_of(mark_chart(FRAME, "point", "n", "x"))] == [0.5, 1.5]


def test_dates_are_drawn_as_iso_text():
    assert rows_of(mark_chart(FRAME, "line", "day", "n"))[0] == {"x": "2026-01-01", "y": 1}


@pytest.mark.parametrize(
    ("mark", "x", "y", "sentence"),
    [
        ("pie", "name", "n", "bar, line, point, tick, area, boxplot"),
        ("bar", "colour", "n", r"no column 'colour'; it has name, n, x, day, many"),
        ("bar", "name", "many", "holds List"),
    ],
)
def test_wrong_marks_and_columns_are_sentences(mark, x, y, sentence):
    with pytest.raises(UsageError, match=sentence):
        mark_chart(FRAME, mark, x, y)


def test_nothing_to_draw_is_a_sentence():
    with pytest.raises(WarehouseError, match="nothing to draw"):
        mark_chart(FRAME.clear(), "bar", "name", "n")


# Files


@pytest.fixture
def chart():
    frame = pl.DataFrame({"name": ["</script><script src='https://example.org/x.js'>"], "n": [1]})
    return mark_chart(frame, "bar", "name", "n")


def test_html_needs_no_network(chart, tmp_path):
    path = tmp_path / "chart.html"
    save_chart(chart, path)

    page = path.read_text()

    assert re.findall(r"<script[^>]*>", page) == ["<script>", "<script>"]
    assert page.count("</script>") == 2
    assert not re.findall(r"<(?:link|img|iframe)\b", page.partition("</style>")[0])
    assert "vegaEmbed=" in page
    assert "<title>n by name</title>" in page
    assert len(page) > 500_000


def test_png_has_two_pixels_per_point(chart, tmp_path):
    save_chart(chart, tmp_path / "chart.png")
    save_chart(chart, tmp_path / "chart.svg")

    svg = (tmp_path / "chart.svg").read_text()
    points = [
        float(size) for size in re.search(r'width="([\d.]+)" height="([\d.]+)"', svg).groups()
    ]
    with Image.open(tmp_path / "chart.png") as picture:
        assert picture.size == tuple(pytest.approx(2 * size, abs=2) for size in points)
    assert "n by name" in svg


def test_json_is_the_specification(chart, tmp_path):
    save_chart(chart, tmp_path / "chart.json")
    spec = json.loads((tmp_path / "chart.json").read_text())
    assert spec == chart.to_dict()
    assert "vega-lite" in spec["$schema"]


def test_another_ending_is_a_sentence_and_writes_nothing(chart, tmp_path):
    with pytest.raises(UsageError, match=r"\.html, \.png, \.svg, \.json"):
        save_chart(chart, tmp_path / "chart.pdf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("draw", [iou_chart, curves_chart])
def test_the_studys_charts_are_valid_and_can_be_drawn(studied, draw, tmp_path):
    rows = chart_rows("iou" if draw is iou_chart else "curves", studied.database)
    chart = draw(rows)

    save_chart(chart, tmp_path / "chart.json")
    save_chart(chart, tmp_path / "chart.png")

    # Validates against the schema of Vega-Lite, which saving leaves out.
    assert json.loads((tmp_path / "chart.json").read_text()) == chart.to_dict()

    picture = Image.open(io.BytesIO((tmp_path / "chart.png").read_bytes())).convert("RGB")
    assert min(picture.size) > 300
    assert len(picture.getcolors(maxcolors=1 << 20)) > 20


# The audit


@pytest.fixture
def audited(made_up):
    """An audit whose masks stand in reverse order."""
    slices = [f"{index:02d}" for index in range(6)]
    with new_record(made_up.runs, "audit") as draft:
        draft.config = {
            "dataset": "vnc",
            "verdict": "fail",
            "checks": [
                {"name": "pairing", "verdict": "fail", "message": "0% fit."},
                {"name": "sizes", "verdict": "pass", "message": "All alike."},
            ],
            "pairing": {
                "own_mask_wins": 0.0,
                "assignment": {},
                "displaced": {"0.tif": "5.png", "5.tif": "0.png"},
                "undecided": ["1.tif", "2.tif", "3.tif", "4.tif"],
                "doubtful": [],
                "evidence": 6.5,
                "cause": "reversed",
                "orientation": "as they are",
                "channel": "strong gradients on the outline",
                "examined": 6,
            },
            "audit_key": "key",
        }
        rows = [
            {
                "image": image,
                "mask": mask,
                "score": 1.0 if i + j == 5 else -0.2,
                "declared": i == j,
                "assigned": i + j == 5,
            }
            for i, image in enumerate(slices)
            for j, mask in enumerate(slices)
        ]
        draft.write_table("audit_scores.parquet", pl.DataFrame(rows))
        Image.new("RGB", (20, 20), (200, 40, 40)).save(draft.path("worst/02.png"))
        record = draft.finish()
    made_up.sync()
    return made_up, record


def test_the_audit_chart_draws_every_score_and_the_worst_slices(audited, tmp_path):
    made_up, record = audited
    given = audit_rows(made_up.database, "vnc")
    worst = worst_slices(made_up.runs, record.id)
    chart = audit_chart(given, worst)

    drawn = pl.DataFrame(rows_of(chart))
    assert drawn.rows() == given.rows()
    assert given.height == 36
    kinds = dict(marks(chart.to_dict()))
    assert set(kinds) == {"rect", "point", "image"}
    assert "likely cause: reversed" in subtitle(chart)
    save_chart(chart, tmp_path / "audit.png")
    picture = Image.open(tmp_path / "audit.png").convert("RGB")
    assert (200, 40, 40) in {colour for _, colour in picture.getcolors(1 << 20)}


def test_audits_are_rows(audited):
    made_up, record = audited
    rows = run_query(made_up.database, "FROM audits", {}).to_dicts()
    assert rows[0] | {"audit_id": record.id, "verdict": "fail", "cause": "reversed"} == rows[0]
    checks = run_query(made_up.database, "SELECT name, verdict FROM audit_checks", {}).rows()
    assert sorted(checks) == [("pairing", "fail"), ("sizes", "pass")]


def test_no_audit_is_said(made_up):
    made_up.dataset()
    made_up.sync()
    with pytest.raises(WarehouseError, match="emcache dataset audit NAME"):
        audit_chart(audit_rows(made_up.database, "vnc"))
