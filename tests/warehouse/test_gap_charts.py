"""Charts of gaps, transfer and cost draw their queries row by row."""

from __future__ import annotations

import io

import polars as pl
import pytest
from PIL import Image

from emcache.errors import WarehouseError
from emcache_warehouse.charts.cost import cost_chart
from emcache_warehouse.charts.gap import gap_chart
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.pca import pca_chart
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.charts.transfer import transfer_chart
from emcache_warehouse.query import run_named_query, run_query

CHARTS = {
    "gap": (gap_chart, "emcache gap"),
    "pca": (pca_chart, "emcache gap"),
    "transfer": (transfer_chart, "emcache evaluate"),
    "cost": (cost_chart, "emcache extract"),
}


@pytest.fixture(scope="module")
def gaps(filled_once, tmp_path_factory):
    """Three domains, a frozen backbone and two LoRA runs; for reading only."""
    made_up = type(filled_once)(tmp_path_factory.mktemp("gaps"))
    made_up.extract("vnc-small")
    domains = ("lucchi++", "vnc", "vnc:stack2")
    made_up.gap(domains, shift=3.0)
    for seed in (0, 1):
        run = made_up.train(("vnc",), seed, regime="lora")
        made_up.gap(domains, "lora", run.id, shift=1.0)
        made_up.evaluate(run, "lucchi++", iou=0.3)
        made_up.evaluate(made_up.train(("vnc",), seed), "lucchi++", iou=0.4)
    # A newer measurement takes the place of the first.
    made_up.gap(domains, shift=2.0)
    made_up.sync()
    return made_up


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_draws_its_query(name, gaps, tmp_path):
    chart_of, _ = CHARTS[name]
    rows = chart_rows(name, gaps.database)
    assert rows.height
    chart = chart_of(rows)
    drawn = pl.DataFrame(chart.datasets["rows"], infer_schema_length=None)
    given = rows
    if name == "pca":
        # Each picture is there once, though its slice stands in every panel.
        given = rows.drop("thumbnail", "recipe_sha256")
        pictures = {row["slice"]: row["image"] for row in chart.datasets["pictures"]}
        slices = rows.select(pl.format("{}/{}", "domain", "slice_id"), "thumbnail").rows()
        assert pictures == dict(slices)
        assert len(chart.datasets["pictures"]) == len(pictures) == 48
    assert drawn.select(given.columns).rows() == given.rows()
    asked = rows.drop("colour", strict=False)
    assert (
        asked.rows() == run_named_query(gaps.database, {"pca": "gap-points"}.get(name, name)).rows()
    )
    save_chart(chart, tmp_path / "chart.png")
    picture = Image.open(io.BytesIO((tmp_path / "chart.png").read_bytes())).convert("RGB")
    assert len(picture.getcolors(maxcolors=1 << 20)) > 20
    chart.to_dict()


@pytest.mark.parametrize("name", CHARTS)
def test_nothing_to_draw_names_the_command(name, made_up):
    made_up.sync()
    chart_of, command = CHARTS[name]
    with pytest.raises(WarehouseError, match=command):
        chart_of(chart_rows(name, made_up.database))


def test_the_newest_measurement_counts(gaps):
    rows = chart_rows("gap", gaps.database)
    assert rows.height == 9
    frozen = rows.filter(pl.col("regime") == "frozen")
    assert frozen.height == 3
    newest = run_query(
        gaps.database, "SELECT frechet FROM gaps WHERE gap_id = (SELECT max(gap_id) FROM gaps)", {}
    )
    assert sorted(frozen["frechet"]) == sorted(newest["frechet"])


def test_transfer_sets_each_run_beside_its_own_distance(gaps):
    rows = chart_rows("transfer", gaps.database)
    assert rows.height == 4
    metrics = run_query(gaps.database, "SELECT run_id, eval_on, iou_fg FROM run_metrics", {})
    scores = {(run, on): iou for run, on, iou in metrics.rows()}
    distances = chart_rows("gap", gaps.database)
    for row in rows.iter_rows(named=True):
        own, away = scores[row["run_id"], "vnc"], scores[row["run_id"], "lucchi++"]
        assert row["iou_drop"] == pytest.approx(own - away)
        pairs = pl.col("domain_a").eq("lucchi++") & pl.col("domain_b").eq("vnc")
        mine = distances.filter(pairs & pl.col("regime").eq(row["regime"]))
        if row["regime"] == "lora":
            mine = mine.filter(pl.col("run_id") == row["run_id"])
        assert [row["frechet"]] == mine["frechet"].to_list()
        # n_a is that of the dataset trained on, whichever way round the pair was measured.
        assert [row["n_a"]] == mine["n_b"].to_list()


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "stack2")])
def test_transfer_is_about_test_slices_where_there_are_some(made_up, splits):
    run = made_up.train(("vnc",), 0)
    counts = [made_up.counts(["fib"], 3, split=split, iou=0.3) for split in splits]
    made_up.evaluate(run, "fib", counts=pl.concat(counts))
    made_up.gap(("fib", "vnc"))
    made_up.sync()
    found = chart_rows("transfer", made_up.database)["split"].to_list()
    assert sorted(found) == (["test"] if "test" in splits else sorted(splits))


def test_what_the_cache_saved_is_counted(gaps):
    (row,) = run_named_query(gaps.database, "cost").to_dicts()
    runs = run_query(
        gaps.database, "SELECT epochs_run, n_train, n_val FROM runs WHERE regime = 'frozen'", {}
    ).to_dicts()
    lora = run_query(
        gaps.database, "SELECT epochs_run, n_train, n_val FROM runs WHERE regime = 'lora'", {}
    ).to_dicts()
    passes = sum(r["epochs_run"] * (r["n_train"] + r["n_val"]) for r in [*runs, *lora])
    assert row["backbone_seconds_saved"] == pytest.approx(passes * 12.5 / 20)
    assert row["break_even_epoch"] == pytest.approx(20 / 17)


def test_embeddings_of_one_width_are_fixed_size_arrays(gaps):
    rows = run_query(
        gaps.database,
        "SELECT level, array_cosine_similarity(vector, vector) AS one, typeof(vector) AS type "
        "FROM embeddings_384",
        {},
    )
    assert set(rows["type"]) == {"FLOAT[384]"}
    assert set(rows["level"]) == {"slice", "token"}
    assert rows["one"].to_list() == pytest.approx([1.0] * rows.height)
    assert run_query(gaps.database, "FROM embeddings_768", {}).is_empty()


def test_a_chart_fetches_no_picture_from_elsewhere(gaps):
    rows = chart_rows("pca", gaps.database).with_columns(
        thumbnail=pl.lit("https://example.org/x.png")
    )
    assert {item["image"] for item in pca_chart(rows).datasets["pictures"]} == {None}


def test_before_and_after_alignment_stand_apart(filled_once, tmp_path_factory, tmp_path):
    made_up = type(filled_once)(tmp_path_factory.mktemp("aligned"))
    made_up.extract("vnc-small")
    domains = ("lucchi++:test", "vnc:test")
    made_up.gap(domains, shift=3.0)
    made_up.gap(domains, shift=0.5, align="standardise")
    made_up.gap(domains, shift=0.2, align="coral to lucchi++")
    made_up.sync()
    rows = run_named_query(made_up.database, "gap")
    assert rows["align"].to_list() == [None, "coral to lucchi++", "standardise"]
    chart = gap_chart(rows)
    panels = set(pl.DataFrame(chart.datasets["rows"], infer_schema_length=None)["panel"])
    assert len(panels) == 3
    assert sum(panel.endswith("aligned by standardise") for panel in panels) == 1
    save_chart(chart, tmp_path / "gap.png")
    points = run_named_query(made_up.database, "gap-points")
    assert points["align"].n_unique() == 3
