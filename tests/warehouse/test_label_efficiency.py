"""Scores against the number of annotated slices."""

import polars as pl
import pytest

from emcache.errors import WarehouseError
from emcache_warehouse.charts.efficiency import efficiency_chart, slices_needed
from emcache_warehouse.charts.kinds import chart_rows
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.query import run_named_query


@pytest.fixture
def labelled(made_up):
    """Three seeds of a head on 1 to 8 slices, and of nearest tokens on one."""
    for seed in range(3):
        for count in (1, 2, 4, 8):
            few = f"max_epochs=3, train_slices={count}" if count < 8 else "max_epochs=3"
            made_up.train(("vnc",), seed, protocol=f"paper[{few}]", annotated_slices=count)
        made_up.train(
            ("vnc",),
            seed,
            regime="few-label",
            head="knn",
            protocol="few-label[clicks=3]",
            annotated_slices=1,
            clicks=3,
        )
        made_up.train(("lucchi++", "vnc"), seed, annotated_slices=8)
        made_up.train(("vnc",), seed, annotated_slices=None)
    made_up.sync()
    return made_up


def test_what_was_annotated_is_no_part_of_the_method(labelled) -> None:
    rows = run_named_query(labelled.database, "label-efficiency")
    assert set(rows.select("method", "protocol").rows()) == {
        ("frozen, deconv", "paper[max_epochs=3]"),
        ("knn", "few-label[clicks=3]"),
    }
    trained = rows.filter(method="frozen, deconv")
    assert trained["annotated_slices"].to_list() == [1] * 3 + [2] * 3 + [4] * 3 + [8] * 3
    assert rows.filter(method="knn")["clicks"].to_list() == [3, 3, 3]


def scores(means: dict[int, float], spread: float = 0.0) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"annotated_slices": count, "iou_fg": mean + spread * (seed - 1)}
            for count, mean in means.items()
            for seed in range(3)
        ]
    )


def test_slices_needed_lie_where_the_line_reaches_enough() -> None:
    found = slices_needed(scores({1: 0.2, 4: 0.5, 8: 0.58, 16: 0.6}))
    # 0.57 lies 7 of 8 hundredths on the way from 4 to 8.
    assert found == pytest.approx((7.5, 7.5, 7.5))
    assert slices_needed(scores({2: 0.6, 8: 0.6})).slices == 2
    wide = slices_needed(scores({1: 0.2, 4: 0.5, 8: 0.58, 16: 0.6}, spread=0.03))
    assert wide.low < wide.slices < wide.high <= 16
    assert slices_needed(scores({4: 0.5})) is None
    assert slices_needed(scores({1: 0.2, 4: 0.5}).head(4)) is None


def test_the_chart_draws_every_row(labelled, tmp_path) -> None:
    rows = chart_rows("label-efficiency", labelled.database)
    chart = efficiency_chart(rows)
    drawn = [row for row in chart.datasets["rows"] if "iou_fg" in row]
    assert len(drawn) == rows.height == 15
    assert sum("mean" in row for row in chart.datasets["rows"]) == 5
    save_chart(chart, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 10_000
    with pytest.raises(WarehouseError, match="no run says how many slices it was given"):
        efficiency_chart(rows.clear())
