"""Benchmarks in the warehouse: rows as measured, a margin on either side of a target, a picture."""

from __future__ import annotations

import io
import json

import polars as pl
import pytest
import torch
from emcache_bench.growth import GrowthPoint
from emcache_bench.of_warehouse import growth_of_warehouse, measure_ingest
from emcache_bench.ratio import Target, of_rounds
from emcache_bench.run import BenchOptions, Suite, run_benchmarks
from emcache_bench.setting import Setting
from PIL import Image

from emcache.errors import WarehouseError
from emcache.progress import Quiet
from emcache.storage.workspace import init_workspace
from emcache_warehouse.charts.bench import BenchRows, bench_chart, bench_rows
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.query import run_named_query, run_query
from emcache_warehouse.sync import check, sync

AT_LEAST, AT_MOST = Target(2.0, at_least=True), Target(4.0, at_least=False)


def suite(ratio: float) -> Suite:
    """Three ratios around the given one, with a target each or none."""

    def measure(setting):
        times = {"ours": [1.0, 2.0]}
        rounds = [ratio / 2, ratio, ratio * 2]
        yield of_rounds("fast", "theirs / ours", rounds, AT_LEAST, times, note="so it is")
        yield of_rounds("small", "ours / theirs", rounds, AT_MOST, {})
        yield of_rounds("open", "a / b", rounds, None, {})

    def grow(setting):
        return [GrowthPoint("audit", n, n * ratio) for n in (10, 100)]

    return Suite({"some": measure}, frozenset(), (grow,))


@pytest.fixture
def measured(made_up):
    """Two runs of benchmarks, the second twice as good."""
    workspace, _ = init_workspace(made_up.root)
    for ratio in (1.0, 3.0):
        run_benchmarks(workspace, suite(ratio), BenchOptions(quick=True), Quiet())
    made_up.sync()
    return made_up


def test_rows_are_those_measured(measured):
    rows = run_query(
        measured.database,
        "SELECT name, ratio, target, note, times FROM benchmarks ORDER BY ALL",
        {},
    )
    assert rows.filter(name="fast").rows() == [
        ("fast", ratio, ">= 2", "so it is", [{"what": "ours", "seconds": [1.0, 2.0]}])
        for ratio in (1.0, 3.0)
    ]
    assert rows.filter(name="open").select("target", "note").rows() == [(None, None)] * 2
    assert {finding.verdict for finding in check(measured.runs, measured.database)} == {"pass"}


def test_the_newest_counts_and_margins_point_one_way(measured):
    rows = {row["name"]: row for row in run_named_query(measured.database, "bench").to_dicts()}
    fast, small = rows["fast"], rows["small"]
    assert (fast["margin_low"], fast["margin"], fast["margin_high"]) == (0.75, 1.5, 3.0)
    assert small["margin"] == pytest.approx(4 / 3)
    assert small["margin_low"] == pytest.approx(4 / 6)
    assert small["margin_high"] == pytest.approx(4 / 1.5)
    assert rows["open"]["margin"] is None
    growth = run_named_query(measured.database, "growth")
    assert growth["seconds_per_slice"].to_list() == [3.0, 3.0]


def test_the_chart_draws_both_queries(measured, tmp_path):
    rows = bench_rows(measured.database)
    chart = bench_chart(rows)
    drawn = pl.DataFrame(chart.datasets["rows"], infer_schema_length=None)
    for panel, name in (("ratio", "bench"), ("growth", "growth")):
        given = run_named_query(measured.database, name)
        assert drawn.filter(panel=panel).select(given.columns).rows() == given.rows()
    save_chart(chart, tmp_path / "chart.png")
    picture = Image.open(io.BytesIO((tmp_path / "chart.png").read_bytes())).convert("RGB")
    assert len(picture.getcolors(maxcolors=1 << 20)) > 20
    # Ratios alone, growth alone.
    for some in (
        BenchRows(rows.ratios, rows.growth.clear()),
        BenchRows(rows.ratios.filter(name="open"), rows.growth),
    ):
        save_chart(bench_chart(some), tmp_path / "some.png")


def test_nothing_to_draw_names_the_command(made_up):
    made_up.sync()
    with pytest.raises(WarehouseError, match="emcache bench"):
        bench_chart(bench_rows(made_up.database))


@pytest.mark.parametrize(
    ("quick", "said"),
    [
        ([True, True], "measured with --quick on"),
        ([True, False], "measured, in part with --quick, on"),
        ([False, False], "measured on"),
    ],
)
def test_a_chart_says_which_figures_are_quick(measured, quick, said):
    rows = bench_rows(measured.database)
    ratios = rows.ratios.head(2).with_columns(quick=pl.Series(quick))
    assert said in json.dumps(bench_chart(BenchRows(ratios, rows.growth)).to_dict())


@pytest.mark.slow
def test_the_warehouse_measures_itself(tmp_path):
    setting = Setting(tmp_path, torch.device("cpu"), quick=True, reporter=Quiet())
    (found,) = measure_ingest(setting)
    assert found.unit == "records/s"
    assert found.low <= found.ratio <= found.high
    points = list(growth_of_warehouse(setting))
    assert [(p.stage, p.n_slices) for p in points] == [
        (stage, n) for n in (10, 100, 1000) for stage in ("ingest", "query")
    ]


def test_a_file_without_a_column_is_left_out_by_name(made_up):
    """The others of its batch are taken in all the same."""
    good = [made_up.train(seed=seed) for seed in range(3)]
    counts = made_up.counts(["vnc"]).drop("fn")
    made_up.train(seed=3, counts=counts)
    report = sync(made_up.runs, made_up.database)
    assert list(report.ingested) == [record.id for record in good]
    (problem,) = report.problems
    assert "slice_metrics.parquet has no fn" in problem.message
    records = {f.name: f for f in check(made_up.runs, made_up.database)}["records"]
    assert records.verdict == "fail"
    assert "has no fn" in records.message
