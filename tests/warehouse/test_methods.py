"""Every method on one page, beside published figures."""

import polars as pl
import pytest

from emcache.errors import WarehouseError
from emcache.storage.workspace import init_workspace
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.methods import PUBLISHED, methods_chart
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.choice import EVERYTHING, Choice
from emcache_warehouse.query import run_named_query, run_query
from emcache_warehouse.report.leaderboard import scores

SETUPS = (
    ("few-label", "knn", "dinov2-small", "few-label"),
    ("few-label", "forest", "dinov2-small", "few-label[clicks=9]"),
    ("few-label", "forest", "dinov2-small", "few-label[scribbles=0.01]"),
    ("supervised", "unet", "none", "unet"),
    ("frozen", "deconv", "dinov2-small", "paper"),
    ("lora", "deconv", "dinov2-small", "paper"),
)


@pytest.fixture
def tried(made_up):
    """Two seeds of each method on a dataset of the layout vnc by another name."""
    made_up.dataset("nerve cord", 12, layout="vnc")
    made_up.dataset("others", 5, layout="folder")
    for regime, head, backbone, protocol in SETUPS:
        for seed in range(2):
            facts = {"regime": regime, "head": head, "backbone": backbone, "protocol": protocol}
            facts |= {"annotated_slices": 3, "labelled_pixels": 900}
            if backbone == "none":
                facts["weights"] = "none"
            made_up.train(("nerve cord",), seed, n_slices=12, **facts)
    made_up.train(("others",), 0)
    made_up.train(("nerve cord", "others"), 0)
    made_up.sync()
    return made_up


def test_rows_are_ours_and_published_ones_of_the_layout(tried) -> None:
    rows = run_named_query(tried.database, "methods")
    own = rows.filter(pl.col("run_id").is_not_null())
    assert own.height == 2 * len(SETUPS) + 1
    assert set(own.filter(eval_on="nerve cord")["kind"]) == {
        "few labels",
        "from scratch",
        "frozen backbone",
        "LoRA",
    }
    assert own.filter(eval_on="nerve cord")["iou_fg_low"].null_count() == 0
    assert own.filter(eval_on="others")["iou_fg_low"].null_count() == 1
    published = rows.filter(pl.col("run_id").is_null())
    assert set(published["eval_on"]) == {"nerve cord"}
    assert published["citation"].null_count() == 0
    paper = run_query(
        tried.database,
        "SELECT iou_fg_mean FROM paper_results WHERE train_on = 'vnc' AND eval_on = 'vnc' "
        "AND sampling = 'natural'",
        {},
    )
    assert sorted(published["iou_fg"]) == sorted(paper["iou_fg_mean"])


def test_every_published_figure_has_a_source_and_a_kind_that_is_drawn(made_up) -> None:
    made_up.dataset()
    made_up.sync()
    rows = run_query(made_up.database, "FROM literature_results", {})
    assert rows.height >= 3
    assert rows["citation"].str.len_chars().min() > 20
    assert set(rows["kind"]) <= {"from scratch", "domain adaptation"}
    assert rows["iou_fg"].is_between(0, 1).all()


def test_a_bar_for_each_method_and_setup_and_a_panel_for_each_kind(tried, tmp_path) -> None:
    rows = chart_rows("methods", tried.database)
    chart = methods_chart(rows)
    spec = chart.to_dict()
    drawn = pl.DataFrame(spec["datasets"]["rows"], infer_schema_length=None)
    assert drawn.height == rows.height
    bars = drawn.filter(eval_on="nerve cord", kind="few labels")["bar"].unique().to_list()
    assert sorted(bars) == ["forest\nclicks=9", "forest\nscribbles=0.01", "knn"]
    assert drawn.filter(pl.col("run_id").is_null())["bar"].unique().to_list() == [PUBLISHED]
    panels = [[p["title"]["text"] for p in line["hconcat"]] for line in spec["vconcat"]]
    assert panels == [
        ["few labels", "from scratch", "frozen backbone", "LoRA"],
        ["frozen backbone"],
    ]
    save_chart(chart, tmp_path / "methods.svg")
    drawing = (tmp_path / "methods.svg").read_text()
    assert drawing.count("symbol") >= 2 * len(SETUPS) + 1


def test_a_u_net_alone_is_drawn_too(tried) -> None:
    chart = methods_chart(chart_rows("methods", tried.database, Choice(regimes=["supervised"])))
    drawn = pl.DataFrame(chart.datasets["rows"], infer_schema_length=None)
    assert drawn.filter(pl.col("run_id").is_not_null())["bar"].to_list() == ["unet", "unet"]


def test_without_a_run_there_is_nothing_to_draw(made_up) -> None:
    made_up.dataset(layout="vnc")
    made_up.sync()
    with pytest.raises(WarehouseError, match="no run has been tested"):
        methods_chart(chart_rows("methods", made_up.database))


def test_the_report_draws_it_where_there_is_more_than_one_kind(tried) -> None:
    workspace, _ = init_workspace(tried.root)
    names = [figure.name for figure in scores(workspace, EVERYTHING).figures]
    assert "chart-methods" in names
