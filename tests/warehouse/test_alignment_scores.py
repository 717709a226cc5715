"""Scores by alignment, and whether a difference over seeds is clear."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import t as student

from emcache.errors import WarehouseError
from emcache.training.protocol import Protocol
from emcache_warehouse.charts.alignment import alignment_chart
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.query import run_named_query

PLAIN = Protocol(max_epochs=3, lora_last_blocks=2)
ALIGNED = PLAIN.with_changes({"align": "coral", "align_shrinkage": 0.1, "align_on": "test"})
PENALTY = PLAIN.with_changes({"penalty": "mmd", "penalty_weight": 0.5, "normalise": "clahe"})


@pytest.fixture
def scored(made_up):
    """Three seeds of each: vnc alone, both together, and lucchi++ scored on vnc."""
    for protocol in (PLAIN, ALIGNED, PENALTY):
        for seed in range(3):
            facts = {"protocol": protocol.label}
            made_up.train(("vnc",), seed, **facts)
            made_up.train(("lucchi++", "vnc"), seed, **facts)
            other = made_up.train(("lucchi++",), seed, **facts)
            made_up.evaluate(other, "vnc", iou=0.2 + 0.1 * (protocol is ALIGNED) + 0.01 * seed**2)
    made_up.sync()
    return made_up


def test_what_aligns_is_taken_out_of_the_protocol(scored) -> None:
    rows = run_named_query(scored.database, "alignment")
    assert set(rows["aligned_by"]) == {"none", "coral, transductive", "clahe, mmd"}
    assert set(rows["protocol"]) == {PLAIN.label}
    assert PLAIN.label == "paper[max_epochs=3, lora_last_blocks=2]"
    found = set(rows.select("eval_on", "setting", "train_on").rows())
    assert found == {
        ("vnc", "alone", "vnc"),
        ("vnc", "together", "lucchi++ + vnc"),
        ("vnc", "transfer", "lucchi++"),
        ("lucchi++", "alone", "lucchi++"),
        ("lucchi++", "together", "lucchi++ + vnc"),
    }
    assert rows.height == 3 * 3 * 5


def test_a_protocol_that_only_aligns_is_the_named_one(made_up) -> None:
    made_up.train(("vnc",), 0, protocol=Protocol(align="standardise").label)
    made_up.sync()
    (row,) = run_named_query(made_up.database, "alignment").rows(named=True)
    assert (row["aligned_by"], row["protocol"]) == ("standardise", "paper")


def test_differences_over_seeds_have_students_interval(scored) -> None:
    rows = run_named_query(scored.database, "alignment")
    verdicts = run_named_query(scored.database, "closed")

    def scores(setting: str, align: str) -> np.ndarray:
        chosen = rows.filter(eval_on="vnc", setting=setting, aligned_by=align).sort("seed")
        return chosen["iou_fg"].to_numpy()

    for question, before in (
        ("together less alone", "alone"),
        ("transfer with less without", "transfer"),
    ):
        for align in ("coral, transductive", "clahe, mmd"):
            setting = "together" if before == "alone" else "transfer"
            difference = scores(setting, align) - scores(before, "none")
            half = student.ppf(0.975, 2) * difference.std(ddof=1) / np.sqrt(3)
            (row,) = verdicts.filter(comparison=question, eval_on="vnc", aligned_by=align).rows(
                named=True
            )
            assert row["n_seeds"] == 3
            assert row["iou_change"] == pytest.approx(difference.mean(), abs=1e-12)
            assert row["iou_change_low"] == pytest.approx(difference.mean() - half, abs=1e-4)
            clear = (
                "better"
                if row["iou_change_low"] > 0
                else "worse"
                if row["iou_change_high"] < 0
                else "not told apart"
            )
            assert row["answer"] == clear
    better = verdicts.filter(
        comparison="transfer with less without", aligned_by="coral, transductive"
    )
    assert better["answer"].to_list() == ["better"]


def test_no_verdict_on_data_whose_audit_failed_or_of_two_seeds(made_up) -> None:
    for seed in range(3):
        made_up.train(("vnc",), seed, protocol="paper")
        made_up.train(("lucchi++", "vnc"), seed, protocol="paper", audit_accepted=True)
    for seed in range(2):
        made_up.train(("vnc", "other"), seed, protocol="paper")
    made_up.sync()
    rows = run_named_query(made_up.database, "closed").filter(eval_on="vnc")
    found = dict(rows.select("train_on", "answer").rows())
    assert found == {
        "lucchi++ + vnc": "an audit failed",
        "other + vnc": "too few seeds",
    } or found == {
        "lucchi++ + vnc": "an audit failed",
        "vnc + other": "too few seeds",
    }


def test_the_chart_draws_every_row(scored, tmp_path) -> None:
    rows = chart_rows("alignment", scored.database)
    chart = alignment_chart(rows)
    drawn = pl.DataFrame(chart.datasets["rows"], infer_schema_length=None)
    assert drawn.select(rows.columns).rows() == rows.rows()
    save_chart(chart, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 10_000
    with pytest.raises(WarehouseError, match="no run has been tested yet"):
        alignment_chart(rows.clear())
