"""Scores are views over counts, and the counts are right."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from emcache.storage.records import new_record
from emcache_warehouse.query import run_named_query, run_query


def pixel_counts(source, slices, rng, *, split="test"):
    """Counts of random masks and predictions, together with the masks themselves."""
    rows, truths, guesses = [], [], []
    for index in range(slices):
        truth = rng.random((32, 32)) < 0.3
        guess = truth ^ (rng.random((32, 32)) < rng.uniform(0.05, 0.3))
        truths.append(truth)
        guesses.append(guess)
        rows.append(
            {
                "eval_on": source,
                "split": split,
                "slice_id": f"{index:02d}",
                "class": "foreground",
                "tp": int((truth & guess).sum()),
                "fp": int((~truth & guess).sum()),
                "fn": int((truth & ~guess).sum()),
                "tn": int((~truth & ~guess).sum()),
            }
        )
    return pl.DataFrame(rows), np.stack(truths), np.stack(guesses)


def numpy_iou(truth, guess):
    return (truth & guess).sum() / ((truth | guess).sum() + 1e-7)


def numpy_dice(truth, guess):
    return 2 * (truth & guess).sum() / (truth.sum() + guess.sum() + 1e-7)


def metrics(made_up):
    made_up.sync()
    return run_query(made_up.database, "FROM run_metrics ORDER BY eval_on", {})


def test_one_source_scores_as_numpy_counts_and_has_no_macro(made_up):
    counts, truth, guess = pixel_counts("vnc", 5, np.random.default_rng(1))
    made_up.train(counts=counts, seed=7)

    rows = metrics(made_up)

    assert rows["eval_on"].to_list() == ["vnc"]
    assert rows["n_slices"].to_list() == [5]
    assert rows["seed"].to_list() == [7]
    assert rows["iou_fg"][0] == pytest.approx(numpy_iou(truth, guess), rel=1e-12)
    assert rows["dice_fg"][0] == pytest.approx(numpy_dice(truth, guess), rel=1e-12)


def test_two_sources_add_the_mean_and_the_pooled_score(made_up):
    rng = np.random.default_rng(2)
    one, truth_one, guess_one = pixel_counts("lucchi++", 6, rng)
    two, truth_two, guess_two = pixel_counts("vnc", 2, rng)
    made_up.train(("lucchi++", "vnc"), counts=pl.concat([one, two]))

    rows = metrics(made_up)
    iou = dict(rows.select("eval_on", "iou_fg").iter_rows())
    dice = dict(rows.select("eval_on", "dice_fg").iter_rows())
    n_slices = dict(rows.select("eval_on", "n_slices").iter_rows())

    apart = numpy_iou(truth_one, guess_one), numpy_iou(truth_two, guess_two)
    truth, guess = np.concatenate([truth_one, truth_two]), np.concatenate([guess_one, guess_two])
    assert iou == {
        "lucchi++": pytest.approx(apart[0], rel=1e-12),
        "vnc": pytest.approx(apart[1], rel=1e-12),
        "macro": pytest.approx(np.mean(apart), rel=1e-12),
        "pooled": pytest.approx(numpy_iou(truth, guess), rel=1e-12),
    }
    assert dice["pooled"] == pytest.approx(numpy_dice(truth, guess), rel=1e-12)
    assert n_slices == {"lucchi++": 6, "vnc": 2, "macro": 8, "pooled": 8}
    assert abs(iou["macro"] - iou["pooled"]) > 1e-6


def test_sources_on_different_splits_are_not_combined(made_up):
    rng = np.random.default_rng(3)
    one, *_ = pixel_counts("lucchi++", 2, rng, split="test")
    two, *_ = pixel_counts("vnc", 2, rng, split="stack2")
    made_up.train(("lucchi++", "vnc"), counts=pl.concat([one, two]))

    assert metrics(made_up)["eval_on"].to_list() == ["lucchi++", "vnc"]


def test_other_classes_do_not_count(made_up):
    counts, truth, guess = pixel_counts("vnc", 2, np.random.default_rng(4))
    other = counts.with_columns(pl.lit("membrane").alias("class"), tp=pl.lit(1, pl.Int64))
    made_up.train(counts=pl.concat([counts, other]))

    rows = metrics(made_up)

    assert rows["n_slices"].to_list() == [2]
    assert rows["iou_fg"][0] == pytest.approx(numpy_iou(truth, guess), rel=1e-12)


def test_nothing_to_find_and_nothing_found_scores_zero_as_in_the_reference(made_up):
    counts = made_up.counts(("vnc",), 1).with_columns(tp=0, fp=0, fn=0, tn=100)
    made_up.train(counts=counts)

    assert metrics(made_up)["iou_fg"].to_list() == [0.0]


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("weights", "pretrained"),
        ("longest_edge", 518),
        ("protocol", "paper"),
        ("backbone", "dinov2-base"),
        ("regime", "lora"),
        ("sampling", "balanced"),
        ("audit_accepted", True),
    ],
)
def test_the_leaderboard_never_mixes(made_up, column, other):
    made_up.train(seed=0)
    made_up.train(seed=0, **{column: other})
    made_up.sync()

    rows = run_named_query(made_up.database, "leaderboard")

    assert rows["n_runs"].to_list() == [1, 1]
    assert other in rows[column].to_list()
    assert rows["iou_fg_std"].to_list() == [None, None]


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("label_sets", ["corrected"]),
        ("feature_fingerprints", ["other"]),
        ("setup_fingerprint", "other splits"),
        ("precision", "bfloat16"),
    ],
)
def test_the_leaderboard_never_mixes_what_it_does_not_show(made_up, column, other):
    made_up.train(seed=0)
    made_up.train(seed=0, **{column: other})
    made_up.sync()

    assert run_named_query(made_up.database, "leaderboard")["n_runs"].to_list() == [1, 1]


def test_the_leaderboard_never_mixes_test_sets_of_different_size(made_up):
    made_up.train(seed=0, n_slices=3)
    made_up.train(seed=1, n_slices=4)
    made_up.sync()

    assert run_named_query(made_up.database, "leaderboard")["n_runs"].to_list() == [1, 1]


def test_the_leaderboard_is_mean_and_sample_deviation_best_first(made_up):
    for seed in range(4):
        made_up.train(seed=seed, counts=made_up.counts(("vnc",), iou=0.4))
        made_up.train(seed=seed, weights="pretrained", counts=made_up.counts(("vnc",), iou=0.8))
    made_up.sync()

    board = run_named_query(made_up.database, "leaderboard")
    runs = run_query(made_up.database, "FROM run_metrics", {})

    assert board["weights"].to_list() == ["pretrained", "random:0"]
    for row in board.iter_rows(named=True):
        scores = runs.filter(weights=row["weights"])["iou_fg"].to_numpy()
        assert row["n_runs"] == row["distinct_results"] == 4
        assert row["iou_fg_mean"] == pytest.approx(scores.mean())
        assert row["iou_fg_std"] == pytest.approx(scores.std(ddof=1))


def test_identical_repeats_are_reported(made_up):
    same = made_up.counts(("vnc",))
    for seed in range(3):
        made_up.train(seed=seed, counts=same)
    made_up.train(seed=0, weights="pretrained", counts=same)
    made_up.sync()

    board = run_named_query(made_up.database, "leaderboard").filter(weights="random:0")
    seeds = run_named_query(made_up.database, "seeds")

    assert board.select("n_runs", "distinct_results", "iou_fg_std").rows() == [(3, 1, 0.0)]
    flagged = seeds.select("weights", "identical_repeat").rows()
    assert flagged == [("pretrained", False)] + [("random:0", True)] * 3


def test_equal_pooled_totals_from_different_sources_are_different_results(made_up):
    counts = made_up.counts(("lucchi++", "vnc"), 1)
    swapped = counts.with_columns(pl.col("tp", "fp", "fn", "tn").reverse())
    made_up.train(("lucchi++", "vnc"), seed=0, counts=counts)
    made_up.train(("lucchi++", "vnc"), seed=1, counts=swapped)
    made_up.sync()

    board = run_named_query(made_up.database, "leaderboard")

    assert board.filter(eval_on="pooled")["iou_fg_std"].to_list() == [0.0]
    assert board.filter(eval_on="macro")["distinct_results"].to_list() == [2]


def test_every_cell_of_the_paper_appears_with_ours_beside_it(made_up):
    ours = {"backbone": "dinov2-large", "weights": "pretrained", "protocol": "paper"}
    made_up.train(("vnc",), **ours)
    made_up.train(("lucchi++", "vnc"), **ours)
    made_up.sync()

    rows = run_named_query(made_up.database, "paper-comparison")
    cells = rows.unique(["paper_table", "backbone", "regime", "train_on", "eval_on", "sampling"])
    matched = rows.drop_nulls("our_eval_on")

    assert cells.height == 60
    assert matched.select("paper_table", "train_on", "eval_on", "our_eval_on").rows() == [
        (1, "lucchi++ + vnc", "lucchi++ + vnc", "macro"),
        (1, "lucchi++ + vnc", "lucchi++ + vnc", "pooled"),
        (1, "vnc", "vnc", "vnc"),
        (8, "lucchi++ + vnc", "lucchi++", "lucchi++"),
        (8, "lucchi++ + vnc", "lucchi++ + vnc", "macro"),
        (8, "lucchi++ + vnc", "lucchi++ + vnc", "pooled"),
        (8, "lucchi++ + vnc", "vnc", "vnc"),
    ]
    assert matched["weights"].unique().to_list() == ["pretrained"]
    for row in matched.iter_rows(named=True):
        assert row["difference"] == pytest.approx(row["iou_fg_mean"] - row["paper_iou_fg_mean"])
    table_one = matched.filter(paper_table=1, eval_on="vnc")
    assert table_one.select("paper_iou_fg_mean", "paper_iou_fg_std", "paper_n_runs").rows() == [
        (0.723, 0.002, 5)
    ]


def test_the_paper_is_compared_on_the_test_split_only(made_up):
    counts = made_up.counts(("vnc",), split="train")
    made_up.train(backbone="dinov2-large", counts=counts)
    made_up.sync()

    rows = run_named_query(made_up.database, "paper-comparison")

    assert rows["iou_fg_mean"].null_count() == rows.height


def test_cost_adds_up_extractions_and_the_training_that_read_them(made_up):
    made_up.extract("vnc-small", compute_seconds=10.0, total_bytes=100)
    made_up.extract("vnc-small", compute_seconds=5.0, total_bytes=200)
    made_up.extract("other", compute_seconds=1.0)
    made_up.train(seed=0, train_seconds=30.0)
    made_up.train(seed=1, train_seconds=50.0)
    made_up.sync()

    rows = run_named_query(made_up.database, "cost")

    columns = ["feature_set", "total_bytes", "extract_seconds", "n_runs", "train_seconds"]
    assert rows.select(columns).rows() == [
        ("vnc-small", 200, 15.0, 2, 80.0),
        ("other", 6_000_000, 1.0, 0, None),
    ]


def test_worst_slices_come_first_and_as_many_as_asked_for(made_up):
    made_up.train(n_slices=30)
    made_up.sync()

    by_default = run_named_query(made_up.database, "worst-slices")
    three = run_named_query(made_up.database, "worst-slices", {"limit": "3"})

    assert by_default.height == 20
    assert by_default["iou_fg"].is_sorted()
    assert three.equals(by_default.head(3))


# Evaluations


def evaluate(made_up, run, counts, key="k"):
    with new_record(made_up.runs, "evaluate") as draft:
        names = counts["eval_on"].unique(maintain_order=True).to_list()
        draft.config = {
            "run_id": run.id,
            "eval_on": names,
            "data_keys": [f"{key}-{name}" for name in names],
            "device": "cpu",
        }
        draft.write_table("slice_metrics.parquet", counts)
        return draft.finish()


def scores(made_up):
    made_up.sync()
    statement = "SELECT run_id, eval_on, split, n_slices, iou_fg FROM run_metrics ORDER BY ALL"
    return run_query(made_up.database, statement, {})


def test_another_dataset_is_a_row_and_makes_no_macro(made_up):
    run = made_up.train(("vnc",))
    counts, truth, guess = pixel_counts("lucchi++", 4, np.random.default_rng(1))
    evaluate(made_up, run, counts)

    rows = scores(made_up)

    assert rows["eval_on"].to_list() == ["lucchi++", "vnc"]
    assert rows["iou_fg"][0] == pytest.approx(numpy_iou(truth, guess), rel=1e-12)


def test_a_paired_run_keeps_its_macro_over_what_it_was_trained_on(made_up):
    run = made_up.train(("lucchi++", "vnc"))
    before = scores(made_up)
    evaluate(made_up, run, pixel_counts("kasthuri", 4, np.random.default_rng(1))[0])

    after = scores(made_up)

    assert set(before["eval_on"]) == {"lucchi++", "vnc", "macro", "pooled"}
    assert after.filter(pl.col("eval_on") != "kasthuri").equals(before)
    assert after.height == before.height + 1


def test_what_the_training_scored_stays_and_the_newest_evaluation_counts(made_up):
    run = made_up.train(("vnc",))
    before = scores(made_up)
    rng = np.random.default_rng(2)
    own, *_ = pixel_counts("vnc", 3, rng)
    old, *_ = pixel_counts("lucchi++", 4, rng)
    new, truth, guess = pixel_counts("lucchi++", 5, rng)
    evaluate(made_up, run, pl.concat([own, old]))
    evaluate(made_up, run, new)

    rows = scores(made_up)

    assert rows.filter(eval_on="vnc").equals(before)
    (row,) = rows.filter(eval_on="lucchi++").rows(named=True)
    assert row["n_slices"] == 5
    assert row["iou_fg"] == pytest.approx(numpy_iou(truth, guess), rel=1e-12)
    kept = run_query(made_up.database, "SELECT count(*) FROM evaluation_metrics", {}).item()
    assert kept == 3 + 4 + 5, "nothing is lost"


def test_evaluations_of_other_pixels_or_labels_share_no_row(made_up):
    counts, *_ = pixel_counts("lucchi++", 4, np.random.default_rng(1))
    for seed, key in ((0, "a"), (1, "a"), (2, "corrected")):
        evaluate(made_up, made_up.train(seed=seed), counts, key)
    made_up.sync()

    rows = run_named_query(made_up.database, "leaderboard").filter(eval_on="lucchi++")

    assert sorted(rows["n_runs"]) == [1, 2]


# What a run has seen, what it learned, and what is set aside


def table(made_up, sql, variables=()):
    made_up.sync()
    return run_query(made_up.database, sql, {}, variables=dict(variables))


def test_seen_slices_make_rows_of_their_own_and_enter_no_mean(made_up):
    run = made_up.train(("vnc", "lucchi++"))
    fresh = made_up.counts(["again"], 3, split="test", iou=0.3, from_training=7)
    near = made_up.counts(["again"], 5, split="test", iou=0.3, from_training=2)[3:]
    seen = made_up.counts(["again"], 9, split="test", iou=0.9, from_training=0)[5:]
    made_up.evaluate(run, "again", counts=pl.concat([fresh, near, seen]))

    found = table(made_up, "FROM run_metrics WHERE eval_on = 'again' ORDER BY seen")
    assert found.select("seen", "n_slices", "n_near").rows() == [(False, 5, 2), (True, 4, 0)]
    for row, counts in zip(found.iter_rows(named=True), ([fresh, near], [seen]), strict=True):
        tp, fp, fn = pl.concat(counts).select("tp", "fp", "fn").sum().row(0)
        assert row["iou_fg"] == pytest.approx(tp / (tp + fp + fn + 1e-7))
    board = run_named_query(made_up.database, "leaderboard")
    assert board.filter(eval_on="again")["seen"].sort().to_list() == [False, True]
    worst = run_named_query(made_up.database, "worst-slices", {"limit": "1000"})
    assert worst.filter(eval_on="again").height == 5


def test_a_slice_that_a_run_on_two_datasets_has_seen_is_no_part_of_macro_or_pooled(made_up):
    counts = [made_up.counts([name], 3) for name in ("vnc", "lucchi++")]
    extra = made_up.counts(["vnc"], 5, from_training=0)[3:]
    made_up.train(("vnc", "lucchi++"), counts=pl.concat([*counts, extra]))
    found = table(made_up, "FROM run_metrics ORDER BY eval_on, seen")
    assert found.select("eval_on", "seen", "n_slices").rows() == [
        ("lucchi++", False, 3),
        ("macro", False, 6),
        ("pooled", False, 6),
        ("vnc", False, 3),
        ("vnc", True, 2),
    ]
    by_name = dict(found.filter(~pl.col("seen")).select("eval_on", "iou_fg").iter_rows())
    assert by_name["macro"] == pytest.approx((by_name["vnc"] + by_name["lucchi++"]) / 2)


def test_counts_of_older_records_are_taken_in_beside_new_ones(made_up):
    made_up.train(seed=1, counts=made_up.counts(["vnc"], 3).drop("slices_from_training"))
    made_up.train(seed=2, counts=made_up.counts(["vnc"], 3, from_training=1))
    found = table(made_up, "FROM run_metrics ORDER BY seed")
    assert found.select("seen", "n_near").rows() == [(False, 0), (False, 3)]


def test_runs_that_differ_where_no_column_shows_it_are_told_apart(made_up):
    for seed in (0, 1):
        made_up.train(seed=seed, label_sets=["masks as released"])
    made_up.train(seed=0, label_sets=["masks corrected"])
    board = table(made_up, "FROM leaderboard")
    assert sorted(board["n_runs"]) == [1, 2]
    assert board["data"].n_unique() == 2
    assert board["data"].str.contains("^[0-9a-f]{12}$").all()
    assert run_named_query(made_up.database, "iou")["data"].n_unique() == 2

    made_up.train(seed=5, precision="bfloat16", label_sets=["masks as released"])
    board = table(made_up, "FROM leaderboard WHERE precision = 'bfloat16'")
    assert board.select("n_runs", "data").rows() == [(1, None)]


def test_runs_that_learned_nothing_are_counted_and_neither_transfer_nor_are_worst(made_up):
    reason = "it predicts no foreground"
    made_up.train(seed=0)
    made_up.train(seed=1, nothing_learned=reason, counts=made_up.counts(["vnc"], 3, iou=0.0))
    board = table(made_up, "FROM leaderboard")
    assert board.select("n_runs", "n_nothing_learned").rows() == [(2, 1)]
    marked = run_named_query(made_up.database, "iou").sort("seed")["nothing_learned"]
    assert marked.to_list() == [None, reason]
    worst = run_named_query(made_up.database, "worst-slices")
    assert set(worst["seed"]) == {0}


def test_a_run_that_was_set_aside_leaves_every_score_until_it_is_taken_back(made_up):
    kept, trial = made_up.train(seed=0), made_up.train(seed=1)
    made_up.mark([trial.id], hidden=True, why="a trial")
    seeds = "SELECT seed FROM run_metrics ORDER BY seed"
    assert table(made_up, seeds)["seed"].to_list() == [0]
    assert table(made_up, "FROM leaderboard")["n_runs"].to_list() == [1]
    assert set(run_named_query(made_up.database, "curves")["run_id"]) == {kept.id}
    assert set(run_named_query(made_up.database, "worst-slices")["run_id"]) == {kept.id}
    assert table(made_up, seeds, {"show_hidden": True})["seed"].to_list() == [0, 1]
    why = table(made_up, "SELECT hidden_why FROM shown_runs WHERE hidden", {"show_hidden": True})
    assert why["hidden_why"].to_list() == ["a trial"]
    assert table(made_up, seeds, {"only_runs": [trial.id], "show_hidden": True})["seed"][0] == 1
    made_up.mark([trial.id], hidden=False, why="looked at again")
    assert table(made_up, seeds)["seed"].to_list() == [0, 1]


def test_a_score_on_data_that_failed_its_audit_says_so(made_up):
    run = made_up.train(("vnc",), audit_accepted=False)
    made_up.evaluate(run, "wrong", audits_failed=[True])
    made_up.evaluate(run, "right", audits_failed=[False])
    made_up.evaluate(run, "older")
    made_up.sync()

    rows = run_query(made_up.database, "SELECT eval_on, audit_accepted FROM run_metrics", {})

    marked = dict(rows.iter_rows())
    assert marked == {"wrong": True, "right": False, "older": False, "vnc": False}
    groups = run_query(made_up.database, "SELECT eval_on, audit_accepted FROM leaderboard", {})
    assert dict(groups.iter_rows()) == marked
