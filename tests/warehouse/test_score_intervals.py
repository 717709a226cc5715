"""Intervals of the leaderboard are those of the Python functions, computed in SQL."""

import duckdb
import numpy as np
import polars as pl
import pytest
from scipy.stats import t as student

from emcache.evaluation.intervals import over_seeds_and_blocks
from emcache_warehouse.query import run_named_query, run_query


def counts_of(values: np.ndarray, names: list[str]) -> pl.DataFrame:
    columns = dict(zip(("tp", "fp", "fn"), values.T.tolist(), strict=True))
    facts = {"eval_on": "vnc", "split": "test", "class": "foreground", "tn": 1000}
    return pl.DataFrame({"slice_id": names, **columns}).with_columns(
        **{name: pl.lit(value) for name, value in facts.items()}
    )


@pytest.mark.parametrize(
    ("seeds", "slices", "between_seeds"), [(2, 10, 0.3), (3, 42, 0.0), (5, 23, 0.1), (3, 12, 4.0)]
)
def test_they_equal_the_function(made_up, seeds, slices, between_seeds):
    random = np.random.default_rng(seeds * slices)
    # Numbers without leading zeros: 10 follows 9, and blocks depend on that.
    names = [f"stack/{number}" for number in range(1, slices + 1)]
    drift = np.linspace(0, 1, slices)[None, :, None]
    values = random.poisson(np.exp(4 + drift + random.normal(0, 0.2, (seeds, slices, 3))))
    values[:, :, 0] += random.poisson(50 * np.exp(between_seeds * random.normal(size=seeds)))[
        :, None
    ]
    for seed in range(seeds):
        made_up.train(("vnc",), seed, counts=counts_of(values[seed], names))
    made_up.sync()
    (row,) = run_named_query(made_up.database, "leaderboard").to_dicts()
    expected = over_seeds_and_blocks(values)
    assert row["iou_fg_mean"] == pytest.approx(expected.value, rel=1e-9)
    reach = expected.high - expected.value
    tolerance = 1e-3 * reach
    # No IoU lies below 0 or above 1.
    assert row["iou_fg_high"] == pytest.approx(min(expected.high, 1), abs=tolerance)
    assert row["iou_fg_low"] == pytest.approx(max(expected.low, 0), abs=tolerance)


def test_few_slices_and_one_run_have_none(made_up):
    random = np.random.default_rng(0)
    few = [counts_of(random.integers(1, 50, (9, 3)), list("abcdefghi")) for _ in range(3)]
    for seed in range(3):
        made_up.train(("vnc",), seed, counts=few[seed])
    enough = counts_of(random.integers(1, 50, (12, 3)), list("abcdefghijkl"))
    made_up.train(("vnc",), 0, counts=enough, protocol="other")
    made_up.sync()
    rows = run_query(made_up.database, "SELECT iou_fg_low, iou_fg_high FROM leaderboard", {})
    assert rows.height == 2
    assert rows.null_count().row(0) == (2, 2)


def test_the_quantile_is_students(made_up):
    made_up.dataset()
    made_up.sync()
    freedoms = [1.0, 1.02, 1.3, 1.7, 2.0, 2.9, 4.0, 6.6, 19.9, 20.0, 21.0, 350.0]
    with duckdb.connect(made_up.database, read_only=True) as connection:
        found = connection.execute(
            "SELECT list(student_t(freedom) ORDER BY freedom) FROM unnest($1) AS t(freedom)",
            [freedoms],
        ).fetchone()
    assert found[0] == pytest.approx(student.ppf(0.975, freedoms), rel=6e-4)
