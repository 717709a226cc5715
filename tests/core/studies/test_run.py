import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from emcache_bench.synthetic import STYLES, write_domain

import emcache.models.loading
import emcache.models.weights.finding
import emcache.studies.run
import emcache.training.run
from emcache.cache.feature_set import list_feature_sets
from emcache.cache.find import FeatureRequest
from emcache.data.register import add_dataset
from emcache.errors import EmcacheError, StudyError, TrainingError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.gap.run import GapOptions, plan_gaps
from emcache.models.backbones.base import random_backbone
from emcache.progress import Quiet
from emcache.storage.records import list_record_ids, read_record
from emcache.storage.workspace import Workspace
from emcache.studies.file import Study, read_study
from emcache.studies.gaps import find_gap_problems, run_study_gaps
from emcache.studies.records import StudyRecords
from emcache.studies.run import plan_study, run_study
from emcache.training.run import train

STUDY = """
[[grid]]
backbones = ["tiny"]
regimes = ["frozen", "lora"]
train_on = ["cells", ["cells", "other"]]
seeds = "0-1"
weights = "random:0"
longest_edge = 70
precision = "float32"
evaluate_on = ["other"]
[grid.protocol]
head = "linear"
learning_rate = 0.01
max_epochs = 2
"""


@pytest.fixture
def two(cells: Workspace, tmp_path: Path) -> Workspace:
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=100, seed=9)
    masked = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(cells, "other", "folder", tmp_path / "other", masked, Quiet())
    return cells


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return read_study(path)


def kinds(workspace: Workspace) -> dict[str, int]:
    names = [read_record(workspace.runs / n).kind for n in list_record_ids(workspace.runs)]
    return {kind: names.count(kind) for kind in names}


def test_a_second_time_there_is_nothing_left(two: Workspace, study: Study) -> None:
    first = list(run_study(two, study, "cpu", Quiet()))
    assert [(r.done_before, r.trained, r.evaluated, r.problem) for r in first] == [
        (0, 2, 2, None),
        (0, 2, 0, None),
        (0, 2, 2, None),
        (0, 2, 0, None),
    ]
    counts = kinds(two)
    assert counts["train-head"] == counts["train-lora"] == counts["evaluate"] == 4
    again = list(run_study(two, study, "cpu", Quiet()))
    assert [(r.done_before, r.trained, r.evaluated) for r in again] == [(2, 0, 0)] * 4
    assert kinds(two) == counts
    assert all(plan.left == () and plan.extract_slices == 0 for plan in plan(two, study))


def plan(workspace: Workspace, study: Study):
    return plan_study(workspace, study, "cpu", Quiet())


def test_the_plan_says_what_is_left_and_makes_nothing(two: Workspace, study: Study) -> None:
    before = sorted(two.root.rglob("*"))
    frozen, paired, lora, _ = plan(two, study)
    assert [p for p in sorted(two.root.rglob("*")) if p not in before] in (
        [],
        [two.cache / "files.json"],
    )
    # Ten slices of 5 x 5 tokens of 64 channels in two bytes; the second cell adds `other` alone.
    assert (frozen.extract_slices, frozen.token_bytes) == (10, 10 * 25 * 64 * 2)
    assert (paired.extract_slices, lora.extract_slices) == (8, 0)
    # 8 training slices, one of them for validation: 4 steps of 2; two seeds, two epochs.
    assert (frozen.steps_per_epoch, frozen.most_steps) == (4, 16)
    assert frozen.most_hours is None
    list(run_study(two, study, "cpu", Quiet()))
    (after, *_) = plan(two, read_more_seeds(study, two))
    assert after.done == (0, 1)
    assert after.left == (2, 3)
    assert after.most_hours is not None


def read_more_seeds(study: Study, workspace: Workspace) -> Study:
    path = workspace.root / "more.toml"
    path.write_text(STUDY.replace("0-1", "0-3"))
    return read_study(path)


def test_what_changed_is_trained_again(two: Workspace, study: Study, tmp_path: Path) -> None:
    list(run_study(two, study, "cpu", Quiet()))
    mask = tmp_path / "cells" / "masks" / "3.png"
    mask.write_bytes((tmp_path / "cells" / "masks" / "4.png").read_bytes())
    assert [len(p.left) for p in plan(two, study)] == [2, 2, 2, 2]


def test_trainings_by_hand_count(two: Workspace, study: Study) -> None:
    request = study.cells[0].request
    features = replace(request.features, precision="float32")
    request = replace(request, features=features, seeds=[1], device="cpu")
    train(two, request, Quiet())
    assert plan(two, study)[0].done == (1,)


def test_a_cell_that_fails_does_not_stop_the_others(
    two: Workspace, study: Study, listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(workspace, request, reporter):
        if request.regime == "lora" and len(request.datasets) == 1:
            raise TrainingError("the loss of epoch 3 is not finite; ...")
        return train(workspace, request, reporter)

    monkeypatch.setattr(emcache.studies.run, "train", fail)
    results = list(run_study(two, study, "cpu", listener))
    assert [result.problem is None for result in results] == [True, True, False, True]
    assert any(
        "lora tiny on cells, natural: the loss of epoch 3" in line for line in listener.lines
    )


def test_a_dataset_that_is_not_there_stops_everything(cells: Workspace, study: Study) -> None:
    with pytest.raises(StudyError, match=r"study study: .*'other'"):
        list(run_study(cells, study, "cpu", Quiet()))
    assert kinds(cells) == {"dataset": 1}
    for cell in plan(cells, study):
        assert cell.problem is not None
        assert "there is no dataset 'other'" in cell.problem


def test_weights_that_are_not_here_are_part_of_the_plan(two: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "missing.toml"
    path.write_text(STUDY.replace("random:0", "none.pth"))
    first = plan(two, read_study(path))[0]
    assert first.done is None
    assert first.problem == f"no weights file {tmp_path / 'none.pth'}"
    path.write_text(STUDY.replace('"tiny"', '"dinov2-small"').replace("random:0", "pretrained"))
    first = plan(two, read_study(path))[0]
    assert first.problem == "weights to be downloaded"
    assert first.token_bytes == 10 * 25 * 384 * 2


def test_an_evaluation_of_other_data_or_of_a_part_does_not_count(
    two: Workspace, study: Study, tmp_path: Path
) -> None:
    first = study.cells[0]
    alone = Study("alone", (first,))
    (result,) = run_study(two, alone, "cpu", Quiet())
    assert (result.trained, result.evaluated) == (2, 2)
    # Another mask stands there now: what was scored is not what would be scored.
    mask = tmp_path / "other" / "masks" / "0.png"
    mask.write_bytes((tmp_path / "other" / "masks" / "1.png").read_bytes())
    (result,) = run_study(two, alone, "cpu", Quiet())
    assert (result.trained, result.evaluated) == (0, 2)
    run = next(n for n in list_record_ids(two.runs) if "train-head" in n)
    (tmp_path / "other" / "masks" / "2.png").write_bytes(mask.read_bytes())
    evaluate_run(two, run, ["other:test"], EvaluationOptions(), Quiet())
    (result,) = run_study(two, alone, "cpu", Quiet())
    assert result.evaluated == 2, "a part of the dataset is not the dataset"


def test_a_seed_that_fails_does_not_stop_the_next(
    two: Workspace, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = emcache.training.run.fit

    def fail(*arguments):
        if arguments[3] == 0:
            raise torch.OutOfMemoryError("no room")
        return real(*arguments)

    monkeypatch.setattr(emcache.training.run, "fit", fail)
    (result,) = run_study(two, Study("alone", study.cells[:1]), "cpu", Quiet())
    assert (result.trained, result.evaluated) == (1, 1)
    assert result.problem is not None
    assert "--accumulate 2" in result.problem


def test_features_of_other_bytes_under_the_same_name_are_not_taken(
    two: Workspace, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of a library that draws random weights."""
    alone = Study("alone", study.cells[:1])
    list(run_study(two, alone, "cpu", Quiet()))
    (older,) = (f for f in list_feature_sets(two.cache) if f.description["dataset"] == "cells")
    monkeypatch.setattr(
        emcache.models.weights.finding,
        "random_backbone",
        lambda spec, seed: random_backbone(spec, 9),
    )
    monkeypatch.setattr(
        emcache.models.loading, "random_backbone", lambda spec, seed: random_backbone(spec, 9)
    )
    (two.cache / "files.json").unlink()
    (result,) = run_study(two, alone, "cpu", Quiet())
    assert (result.trained, result.problem) == (2, None)
    sets = [f for f in list_feature_sets(two.cache) if f.description["dataset"] == "cells"]
    assert len({f.description["weights_sha256"] for f in sets}) == 2
    assert older.name in {f.name for f in sets}


# Datasets that a study brings along

OWN = STUDY.replace('"frozen", "lora"', '"frozen"').replace(
    '["cells", ["cells", "other"]]', '["own"]'
)
OWN = OWN.replace('"0-1"', "0").replace(
    "[[grid]]",
    """
[datasets.own]
layout = "folder"
root = "cells"
images = "images/*.png"
masks = "masks/*.png"

[datasets.other]
layout = "folder"
root = "other"
images = "images/*.png"
masks = "masks/*.png"

[[grid]]""",
)


@pytest.fixture
def own_data(cells_root: Path, tmp_path: Path) -> Path:
    """A folder with what ``OWN`` is trained and scored on."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copytree(cells_root, data / "cells")
    write_domain(data / "other", STYLES["soft"], slices=8, size=100, seed=9)
    return data


def own_study(tmp_path: Path, text: str = OWN) -> Study:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return read_study(path)


def test_an_empty_workspace_gets_the_datasets_of_the_study(
    workspace: Workspace, own_data: Path, tmp_path: Path
) -> None:
    # The training scores its own test slices; an evaluation of them would be the same again.
    study = own_study(tmp_path, OWN.replace('["other"]', '["own:test", "own", "other:test"]'))
    (planned,) = plan_study(workspace, study, "cpu", Quiet(), own_data)
    assert (planned.problem, planned.done) == (None, ())
    assert planned.extract_slices == 10
    assert (workspace.dataset_names(), list_record_ids(workspace.runs)) == ([], [])
    for trained, evaluated in ((1, 1), (0, 0)):
        (result,) = run_study(workspace, study, "cpu", Quiet(), own_data)
        assert (result.trained, result.evaluated, result.problem) == (trained, evaluated, None)
    assert workspace.dataset_names() == ["own", "other"]
    evaluation = next(n for n in list_record_ids(workspace.runs) if "evaluate" in n)
    scored = pl.read_parquet(workspace.runs / evaluation / "slice_metrics.parquet")
    assert set(scored["split"]) == {"test"}


def test_without_its_data_nothing_starts(
    workspace: Workspace, own_data: Path, tmp_path: Path
) -> None:
    shutil.rmtree(own_data / "other")
    study = own_study(tmp_path)
    for start in (plan_study, lambda *a: list(run_study(*a))):
        with pytest.raises(StudyError, match=r"no folder .*other for dataset other .* with --data"):
            start(workspace, study, "cpu", Quiet(), own_data)
    assert workspace.dataset_names() == []


GAPS = """
[[gap]]
between = ["cells", "cells:train", "other:train"]
backbones = ["tiny"]
regimes = ["frozen", "lora"]
train_on = [["cells", "other"]]
weights = "random:0"
longest_edge = 70
precision = "float32"
"""


def with_gaps(tmp_path: Path, gaps: str = GAPS) -> Study:
    path = tmp_path / "gaps.toml"
    path.write_text(STUDY + gaps)
    return read_study(path)


def test_distances_are_measured_once_and_through_the_runs_that_were_named(
    two: Workspace, tmp_path: Path
) -> None:
    study = with_gaps(tmp_path)
    list(run_study(two, study, "cpu", Quiet()))
    frozen, lora = run_study_gaps(two, study, "cpu", Quiet())
    assert (frozen.done_before, frozen.measured, frozen.problem) == (0, 1, None)
    # Two seeds of the one training of both.
    assert (lora.done_before, lora.measured, lora.problem) == (0, 2, None)
    records = [read_record(two.runs / name) for name in list_record_ids(two.runs)]
    gaps = [record for record in records if record.kind == "gap"]
    trained = {record.id for record in records if record.config.get("train_on") == "cells + other"}
    through = {record.config["run_id"] for record in gaps}
    assert through - {None} == trained & {r.id for r in records if r.kind == "train-lora"}
    assert [len(pl.read_parquet(record.folder / "gaps.parquet")) for record in gaps] == [3] * 3
    again = list(run_study_gaps(two, study, "cpu", Quiet()))
    assert [(result.done_before, result.measured) for result in again] == [(1, 0), (2, 0)]
    by_hand = GapOptions(FeatureRequest("tiny", "random:0", 70, precision="float32"))
    frozen_alone = GAPS.replace('"frozen", "lora"', '"frozen"')
    for other in ('levels = ["cls"]', 'normalise = "clahe"'):
        (more,) = run_study_gaps(two, with_gaps(tmp_path, frozen_alone + other), "cpu", Quiet())
        assert more.measured == 1, other
    assert plan_gaps(two, study.gaps[0].between, by_hand, Quiet()).key in StudyRecords(two).gaps
    # Other pixels are another measurement.
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=100, seed=10)
    changed, _ = run_study_gaps(two, with_gaps(tmp_path), "cpu", Quiet())
    assert (changed.done_before, changed.measured) == (0, 1)


def test_distances_that_cannot_be_are_found_before_anything_trains(
    two: Workspace, tmp_path: Path
) -> None:
    study = with_gaps(tmp_path, GAPS.replace("cells:train", "other:night"))
    assert [problem for _, problem in find_gap_problems(two, study)] == [
        "dataset other has no split 'night'; known: train, test."
    ] * 2
    with pytest.raises(StudyError, match="has no split 'night'"):
        list(run_study(two, study, "cpu", Quiet()))
    assert "train-head" not in kinds(two)
    bare = {"images": "images/*.png"}
    add_dataset(two, "bare", "folder", tmp_path / "other", bare, Quiet())
    by_class = with_gaps(tmp_path, GAPS.replace("cells:train", "bare") + "by_class = true")
    with pytest.raises(StudyError, match="not every slice of bare has a mask, which by_class"):
        list(run_study(two, by_class, "cpu", Quiet()))
    with pytest.raises(StudyError, match="other:test has one slice"):
        list(
            run_study(
                two, with_gaps(tmp_path, GAPS.replace("cells:train", "other:test")), "cpu", Quiet()
            )
        )
    # Unlabelled slices can be measured as a whole.
    assert find_gap_problems(two, with_gaps(tmp_path, GAPS.replace("cells:train", "bare"))) == []


def test_distances_that_fail_do_not_stop_the_others(two: Workspace, tmp_path: Path) -> None:
    frozen = GAPS.replace('"frozen", "lora"', '"frozen"')
    study = with_gaps(tmp_path, frozen.replace("random:0", "nowhere.pth") + frozen)
    failed, measured = run_study_gaps(two, study, "cpu", Quiet())
    assert failed.problem is not None
    assert "nowhere.pth" in failed.problem
    assert (measured.measured, measured.problem) == (1, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"cells", "cells:train", "other:train"', '"cells"', "two or more different datasets"),
        ('"cells:train"', '"cells"', "two or more different datasets"),
        ("between", "betwen", "unknown key gap.betwen; did you mean between"),
        ("backbones", "# ", "has no backbones"),
        ("longest_edge = 70", "longest_edge = 84", "no .*grid.* trains such runs at 84 px"),
        ('["cells", "other"]]', '"other"]', "asks for lora runs of tiny, and no"),
        ('"random:0"', '"random:0"\nlevels = ["pixel"]', "levels .* cannot be"),
        ('"tiny"', '"tinny"', "tinny"),
        ('"random:0"', '"random:0"\nnormalise = "claye"', "normalise .* cannot be 'claye'"),
        ('"random:0"', '"random:0"\nnormalise = "clahe"', "has normalise and regime lora"),
        ("[[gap]]", "[gap]", "expected tables, as "),
    ],
)
def test_distances_that_no_study_can_ask_for(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GAPS
    with pytest.raises(EmcacheError, match=message):
        with_gaps(tmp_path, GAPS.replace(old, new, 1))


def test_a_dataset_that_the_workspace_has_by_other_options(
    workspace: Workspace, own_data: Path, tmp_path: Path
) -> None:
    study = own_study(tmp_path)
    named = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "own", "folder", own_data / "other", named, Quiet())
    # Where it lies is for the workspace to say.
    assert plan_study(workspace, study, "cpu", Quiet(), own_data)[0].problem is None
    changed = own_study(
        tmp_path, OWN.replace('masks = "masks', 'mask_threshold = 9\nmasks = "masks')
    )
    with pytest.raises(StudyError, match="has mask_threshold = None, and the study 9"):
        plan_study(workspace, changed, "cpu", Quiet(), own_data)


WRONG = OWN.replace('masks = "masks/*.png"', 'masks = "masks/*.png"\nscramble = "string"', 1)


@pytest.mark.parametrize("accept", [False, True])
def test_data_that_failed_its_audit_is_in_the_plan(
    workspace: Workspace, tmp_path: Path, accept: bool
) -> None:
    write_domain(tmp_path / "cells", STYLES["sharp"], slices=14, size=70, seed=5)
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=100, seed=9)
    for kind in ("images", "masks"):
        for file in (tmp_path / "cells" / kind).iterdir():
            # Images with leading zeros, masks without.
            number = int(file.stem)
            file.rename(
                file.with_name(f"{number:03d}x.png" if kind == "images" else f"{number}.png")
            )
    text = WRONG.replace("scramble", 'pair = "number"\nscramble', 1)
    study = own_study(
        tmp_path, text.replace("seeds", f"accept_audit = {str(accept).lower()}\nseeds")
    )
    (planned,) = plan_study(workspace, study, "cpu", Quiet())
    if accept:
        assert planned.problem is None
        (result,) = run_study(workspace, study, "cpu", Quiet())
        assert result.problem is None
        return
    assert planned.problem is not None
    assert "string order on purpose" in planned.problem
    assert "accept_audit = true in its grid" in planned.problem
    with pytest.raises(StudyError, match=r"study own: the audit of own failed.*in its grid"):
        list(run_study(workspace, study, "cpu", Quiet()))
    assert not any("train" in name for name in list_record_ids(workspace.runs))
    # What the audit found stands in the plan from now on, whatever made it fail.
    assert "failed" in (plan_study(workspace, study, "cpu", Quiet())[0].problem or "")


def test_numbers_of_slices_and_few_labels_are_cells(two: Workspace, tmp_path: Path) -> None:
    one = STUDY.replace('["cells", ["cells", "other"]]', '["cells"]').replace('"0-1"', '"0"')
    few = one.replace('["frozen", "lora"]', '["few-label"]')
    few = few[: few.index("evaluate_on")] + '[grid.protocol]\nname = "few-label"\nclicks = 3\n'
    numbers = one.replace('["frozen", "lora"]', '["frozen"]\ntrain_slices = [1, 2, "all"]')
    path = tmp_path / "numbers.toml"
    path.write_text(few + numbers)
    study = read_study(path)
    assert [cell.request.protocol.train_slices for cell in study.cells] == [None, 1, 2, None]
    assert study.cells[1].words == "frozen tiny on cells, natural, 1 slice"
    plans = list(plan_study(two, study, "cpu", Quiet()))
    assert [plan.problem for plan in plans] == [None] * 4
    assert plans[0].most_steps == 0, "nothing is trained by steps"
    assert plans[1].most_steps < plans[3].most_steps
    results = list(run_study(two, study, "cpu", Quiet()))
    assert [(r.trained, r.problem) for r in results] == [(1, None)] * 4
    again = list(run_study(two, study, "cpu", Quiet()))
    assert [(r.done_before, r.trained) for r in again] == [(1, 0)] * 4
