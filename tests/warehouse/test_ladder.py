"""What adapting more of a backbone brings, and what it takes."""

import polars as pl
import pytest

from emcache.errors import WarehouseError
from emcache.storage.workspace import init_workspace
from emcache.training.protocol import Protocol
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.ladder import ladder_chart
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.choice import EVERYTHING
from emcache_warehouse.query import run_named_query
from emcache_warehouse.report.leaderboard import scores

PLAIN = Protocol(max_epochs=3)
RUNGS = {
    "frozen": ("frozen", PLAIN, 3_828_866),
    "frozen, standardise": ("frozen", PLAIN.with_changes({"align": "standardise"}), 3_828_866),
    "LoRA on the last 2": ("lora", PLAIN.with_changes({"lora_last_blocks": 2}), 3_902_594),
    "LoRA": ("lora", PLAIN, 4_271_234),
    "all weights": ("full", PLAIN, 25_885_442),
}


@pytest.fixture
def climbed(made_up):
    """Two seeds of each rung, on one dataset and on two."""
    made_up.extract(feature_set="vnc-small", total_bytes=3_000_000_000)
    for place, (regime, protocol, count) in enumerate(RUNGS.values()):
        for seed in range(2):
            facts = {
                "regime": regime,
                "protocol": protocol.label,
                "trainable_parameters": count,
                "train_seconds": 10.0 * (place + 1),
                "peak_memory_bytes": 2_000_000_000 + 500_000_000 * place,
                # The same bytes by another name.
                **({} if regime == "frozen" else {"feature_sets": [], "weights": "mine"}),
            }
            for data in (("vnc",), ("lucchi++", "vnc")):
                made_up.train(data, seed, **facts)
    made_up.sync()
    return made_up


def test_every_rung_has_its_name_and_what_it_took(climbed) -> None:
    rows = run_named_query(climbed.database, "ladder").filter(setting="alone")
    assert rows["rung"].unique(maintain_order=True).sort().to_list() == sorted(RUNGS)
    assert set(rows["protocol"]) == {"paper[max_epochs=3]"}
    assert rows["weights"].n_unique() == 1
    assert rows["trainable_parameters"].is_sorted()
    (frozen, other) = rows.filter(rung="frozen").rows(named=True)
    assert (frozen["cache_gb"], frozen["memory_gb"], frozen["train_seconds"]) == (3.0, 2.0, 10.0)
    assert {frozen["seed"], other["seed"]} == {0, 1}
    assert set(rows.filter(regime="full")["cache_gb"]) == {0.0}


def test_a_protocol_of_last_blocks_alone_is_the_named_one(made_up) -> None:
    made_up.train(("vnc",), regime="lora", protocol=Protocol(lora_last_blocks=4).label)
    made_up.sync()
    (row,) = run_named_query(made_up.database, "ladder").rows(named=True)
    assert (row["rung"], row["protocol"]) == ("LoRA on the last 4", "paper")
    assert row["memory_gb"] is None, "records of older versions do not say"


def test_the_chart_draws_every_row_of_what_was_trained_on(climbed, tmp_path) -> None:
    rows = chart_rows("ladder", climbed.database)
    chart = ladder_chart(rows)
    drawn = pl.DataFrame(chart.datasets["rows"], infer_schema_length=None)
    assert drawn.select(rows.columns).rows() == rows.filter(pl.col("setting") != "transfer").rows()
    # Lucchi++ together, VNC alone and together; parameters, seconds and memory.
    assert [len(line.hconcat) for line in chart.vconcat] == [3, 3, 3]
    save_chart(chart, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 10_000
    unknown = rows.with_columns(memory_gb=pl.lit(None, dtype=pl.Float64))
    assert [len(line.hconcat) for line in ladder_chart(unknown).vconcat] == [2, 2, 2]
    with pytest.raises(WarehouseError, match="no run has been tested on what it was trained on"):
        ladder_chart(rows.clear())


def test_the_report_draws_it_where_there_is_more_than_one_rung(made_up) -> None:
    workspace, _ = init_workspace(made_up.root)
    made_up.train(("vnc",))
    made_up.sync()
    assert [figure.name for figure in scores(workspace, EVERYTHING).figures] == ["chart-iou"]
    made_up.train(("vnc",), regime="full", annotated_slices=2)
    made_up.sync()
    found = [figure.name for figure in scores(workspace, EVERYTHING).figures]
    assert found == ["chart-iou", "chart-methods", "chart-ladder", "chart-label-efficiency"]
