"""What a figure shows can be chosen, before anything is averaged and after."""

from __future__ import annotations

import pytest

from emcache.errors import UsageError, WarehouseError
from emcache_warehouse.choice import EVERYTHING, Choice, chosen_rows, of_runs
from emcache_warehouse.named import list_queries


@pytest.fixture
def study(made_up):
    """Two backbones, two regimes, two datasets and their pair, and a trial."""
    for name in ("vnc", "lucchi++"):
        made_up.dataset(name)
    for seed in (0, 1):
        made_up.train(("vnc",), seed)
        made_up.train(("vnc",), seed, backbone="dinov3-small")
        made_up.train(("lucchi++", "vnc"), seed)
    made_up.train(("vnc",), 0, regime="lora")
    made_up.train(("vnc",), 0, protocol="paper[max_epochs=1]")
    made_up.gap()
    made_up.gap(("lucchi++", "vnc"), backbone="dinov3-small", recipe_sha256="another")
    made_up.sync()
    return made_up


def chosen(study, name, **choice):
    return chosen_rows(study.database, name, Choice(**choice))


def test_everything_is_every_row_in_the_order_of_the_query(study):
    whole = chosen_rows(study.database, "leaderboard")
    assert whole.equals(chosen_rows(study.database, "leaderboard", EVERYTHING))
    assert whole.equals(chosen(study, "leaderboard", where="true"))
    assert whole["iou_fg_mean"].is_sorted(descending=True)


def test_runs_are_chosen_before_they_are_averaged(study):
    assert set(chosen(study, "leaderboard", backbones=["dinov3-small"])["n_runs"]) == {2}
    (one,) = chosen(study, "runs", where="seed = 1 AND backbone = 'dinov3-small'")["run_id"]
    board = chosen(study, "leaderboard", runs=[one[-6:]])
    assert board.select("backbone", "n_runs").rows() == [("dinov3-small", 1)]
    assert set(chosen(study, "iou", regimes=["lora"])["regime"]) == {"lora"}


def test_the_latest_of_repeated_trainings_leaves_an_older_trial_out(study):
    latest = chosen(study, "runs", latest=True)
    assert latest.filter(regime="frozen", backbone="dinov2-small", train_on="vnc", seed=0)[
        "protocol"
    ].to_list() == ["paper[max_epochs=1]"]
    assert latest.height == chosen_rows(study.database, "runs").height - 1


def test_rows_about_a_dataset(study):
    tests = set(chosen(study, "iou", datasets=["lucchi++"])["eval_on"])
    assert tests == {"lucchi++"}
    both = set(chosen(study, "iou", datasets=["lucchi++", "vnc"])["eval_on"])
    assert both == {"lucchi++", "vnc", "macro", "pooled"}
    assert set(chosen(study, "curves", datasets=["lucchi++"])["train_on"]) == {"lucchi++ + vnc"}
    assert chosen(study, "gap", datasets=["lucchi++", "vnc"]).height == 2
    with pytest.raises(WarehouseError, match=r"none of the 2 rows of gap is left"):
        chosen(study, "gap", datasets=["vnc"])
    assert set(chosen(study, "gap", backbones=["dinov3-small"])["backbone"]) == {"dinov3-small"}


def test_a_condition_of_sql_may_ask_the_warehouse(study):
    condition = "iou_fg > (SELECT median(iou_fg) FROM run_metrics) -- the better half"
    better = chosen(study, "iou", where=condition)
    assert 0 < better.height < chosen_rows(study.database, "iou").height


def test_a_label_is_a_column_of_the_query(study):
    rows = chosen(study, "iou", label="protocol", latest=True)
    assert rows["label"].to_list() == rows["protocol"].to_list()


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        ("iou", {"where": "iou >"}, r"--where 'iou >' cannot be read \(Parser Error"),
        ("iou", {"where": "score > 1"}, r"columns run_id, regime, "),
        ("iou", {"where": "true) UNION (SELECT 1"}, r"cannot be read"),
        (
            "iou",
            {"datasets": ["vcn"]},
            r"no dataset 'vcn' in the warehouse; known: lucchi\+\+, vnc",
        ),
        ("iou", {"runs": ["nope"]}, r"no run 'nope'; .* `emcache runs list`"),
        ("iou", {"label": "colour"}, r"--label 'colour' is not a column of iou"),
        ("iou", {"backbones": ["dinov9"]}, r"none of the \d+ rows of iou is left"),
        ("growth", {"datasets": ["vnc"]}, r"growth has no dataset to choose by"),
        ("growth", {"backbones": ["x"]}, r"growth has no backbone to choose by"),
    ],
)
def test_what_cannot_be_chosen_is_said(study, name, choice, message):
    with pytest.raises((UsageError, WarehouseError), match=message):
        chosen(study, name, **choice)


def test_a_condition_on_runs_holds_for_every_query_of_a_report(study):
    choice = of_runs(study.database, Choice(where="backbone = 'dinov3-small'", datasets=["vnc"]))
    for query in list_queries():
        rows = chosen_rows(study.database, query.name, choice)
        if "backbone" in rows.columns and "n_runs" not in rows.columns and "seed" in rows.columns:
            assert set(rows["backbone"]) <= {"dinov3-small"}, query.name
    assert set(chosen_rows(study.database, "leaderboard", choice)["backbone"]) == {"dinov3-small"}
    with pytest.raises(WarehouseError, match="no run is left by --where"):
        of_runs(study.database, Choice(where="seed = 99"))


def test_frozen_distances_stay_in_a_report_of_some_runs(study):
    choice = of_runs(study.database, Choice(where="backbone = 'dinov3-small'"))
    assert chosen_rows(study.database, "gap", choice).height == 2
    with pytest.raises(WarehouseError, match="none of the 2 rows of gap is left"):
        chosen(study, "gap", runs=["train-head"])
