"""Which differences between setups are real."""

import numpy as np
import polars as pl
import pytest

from emcache.errors import UsageError
from emcache.evaluation.intervals import over_seeds_and_blocks
from emcache_warehouse.compare import compare_runs
from emcache_warehouse.query import run_named_query


def counts(quality: float, seed: int, slices: int = 12, name: str = "vnc") -> pl.DataFrame:
    """Slices of one difficulty for all runs, with a little noise of each seed."""
    hard = np.random.default_rng(0).normal(size=slices)
    noise = np.random.default_rng(seed).normal(size=slices)
    share = 1 / (1 + np.exp(-(quality + 0.5 * hard + 0.05 * noise)))
    tp = np.rint(1000 * share).astype(int)
    return pl.DataFrame(
        {
            "eval_on": name,
            "split": "test",
            # In another order as texts than as numbers.
            "slice_id": [f"s{place}" for place in range(slices)],
            "class": "foreground",
            "tp": tp,
            "fp": 1000 - tp,
            "fn": 0,
            "tn": 5000,
            "slices_from_training": None,
        },
        schema_overrides={"slices_from_training": pl.Int64},
    )


def trained(made_up, setup: str, quality: float, seeds: int = 3, **options: int) -> str:
    for seed in range(seeds):
        record = made_up.train(
            ("vnc",),
            seed,
            counts=counts(quality + 0.02 * seed, seed, **options),
            setup_fingerprint=setup,
            protocol=f"paper[batch={len(setup)}]",
        )
    return record.id


def test_the_difference_is_that_of_the_counts_and_all_pairs_are_corrected(made_up) -> None:
    runs = [trained(made_up, "a", 0.0), trained(made_up, "bb", 0.0), trained(made_up, "ccc", 1.0)]
    made_up.sync()
    rows = compare_runs(made_up.database, runs)
    assert [(row["a"], row["b"]) for row in rows] == [
        (runs[0], runs[1]),
        (runs[0], runs[2]),
        (runs[1], runs[2]),
    ]
    stacks = [
        np.stack(
            [
                counts(quality + 0.02 * seed, seed).select("tp", "fp", "fn").to_numpy()
                for seed in range(3)
            ]
        )
        for quality in (0.0, 1.0)
    ]
    wanted = over_seeds_and_blocks(stacks[1], stacks[0])
    row = rows[1]
    found = (row["difference"], row["low"], row["high"], row["p_value"])
    assert found == pytest.approx(wanted)
    assert row["answer"] == "b is better"
    assert row["setup_b"] == "frozen, dinov2-small, paper[batch=3], on vnc"
    assert row["p_holm"] == pytest.approx(3 * row["p_value"])
    assert rows[0]["answer"] == "not told apart"
    (backward,) = compare_runs(made_up.database, [runs[2], runs[0]])
    assert backward["answer"] == "a is better"
    assert backward["difference"] == pytest.approx(-row["difference"])


def test_three_slices_and_two_seeds_rank_nothing(made_up) -> None:
    runs = [trained(made_up, s, q, slices=3) for s, q in (("a", 0.0), ("bb", 3.0))]
    few = [trained(made_up, s, q, seeds=2) for s, q in (("ccc", 0.0), ("dddd", 3.0))]
    made_up.sync()
    (row,) = compare_runs(made_up.database, runs)
    assert row["answer"] == "too few slices for 5 blocks; it takes 10"
    assert row["difference"] > 0.2
    assert row["p_value"] is None
    (row,) = compare_runs(made_up.database, few)
    assert row["answer"] == "too few seeds in common; it takes 3"


def test_what_cannot_be_compared(made_up) -> None:
    one, short = trained(made_up, "a", 0.0), trained(made_up, "bb", 0.0, slices=11)
    other = trained(made_up, "ccc", 0.0, name="lucchi++")
    hidden = trained(made_up, "dddd", 0.0)
    made_up.mark([hidden], hidden=True)
    made_up.sync()
    with pytest.raises(
        UsageError, match=r"on 12 test slices of vnc and .* on 11, which are not the"
    ):
        compare_runs(made_up.database, [one, short])
    with pytest.raises(UsageError, match=r"no test set in common \(.* on vnc and .* on lucchi\+\+"):
        compare_runs(made_up.database, [one, other])
    with pytest.raises(UsageError, match=r"slices of fib; found vnc, lucchi.*: name one of these"):
        compare_runs(made_up.database, [one, short, other], "fib")
    with pytest.raises(UsageError, match="are 1 setup; expected two or more"):
        compare_runs(made_up.database, [one, one])
    with pytest.raises(UsageError, match="has no test score that counts"):
        compare_runs(made_up.database, [one, hidden])


def test_the_named_query_has_the_same_differences_uncorrected(made_up) -> None:
    runs = [trained(made_up, "a", 0.0), trained(made_up, "bb", 0.1), trained(made_up, "ccc", 1.0)]
    few = trained(made_up, "dddd", 1.0, seeds=2)
    made_up.sync()
    rows = {
        (row["setup_a"], row["setup_b"]): row
        for row in run_named_query(made_up.database, "differences").to_dicts()
    }
    assert len(rows) == 6
    for row in compare_runs(made_up.database, runs):
        names = [{runs[0]: "a", runs[1]: "bb", runs[2]: "ccc"}[row[side]] for side in ("a", "b")]
        found = rows[tuple(names)]
        assert found["difference"] == pytest.approx(row["difference"], abs=1e-12)
        reach = row["high"] - row["difference"]
        assert found["difference_high"] - found["difference"] == pytest.approx(reach, rel=1e-3)
        assert found["iou_fg_a"] == pytest.approx(row["iou_a"], abs=1e-12)
        clear = row["p_value"] < 0.05
        assert (found["answer"] != "not told apart") == clear
        assert (found["n_seeds"], found["n_slices"]) == (3, 12)
    assert rows["a", "ccc"]["answer"] == "b is better"
    assert rows["ccc", "dddd"]["answer"] == "too few seeds in common; it takes 3"
    assert rows["ccc", "dddd"]["difference_low"] is None
    assert few


def test_the_named_query_pairs_no_other_slices_and_ranks_no_nine(made_up) -> None:
    trained(made_up, "a", 0.0)
    trained(made_up, "bb", 1.0, slices=9)
    trained(made_up, "ccc", 2.0, slices=9)
    made_up.sync()
    (row,) = run_named_query(made_up.database, "differences").to_dicts()
    assert (row["setup_a"], row["setup_b"]) == ("bb", "ccc")
    assert row["answer"] == "too few slices for 5 blocks; it takes 10"
    assert row["difference_low"] is None
