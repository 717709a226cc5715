"""A study that names no precision has one, whichever machines carry it out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import emcache.studies.arithmetic
from emcache.models.arithmetic import Precision
from emcache.progress import Quiet
from emcache.storage.records import list_record_ids, read_record
from emcache.storage.workspace import Workspace
from emcache.studies.arithmetic import with_one_precision
from emcache.studies.file import Study, read_study
from emcache.studies.run import plan_study
from emcache.studies.sharing import carry_out_study

STUDY = """
[[grid]]
backbones = ["tiny"]
regimes = ["frozen"]
train_on = ["cells"]
seeds = "0"
weights = "random:0"
longest_edge = 70
[grid.protocol]
head = "linear"
learning_rate = 0.01
max_epochs = 1

[[grid]]
backbones = ["tiny"]
regimes = ["frozen"]
train_on = ["cells"]
seeds = "0"
weights = "random:0"
longest_edge = 84
precision = "float32"
[grid.protocol]
head = "linear"
max_epochs = 1

[[gap]]
between = ["cells:train", "cells:test"]
backbones = ["tiny"]
weights = "random:0"
longest_edge = 70
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return read_study(path)


@pytest.fixture
def machine(monkeypatch):
    """A machine that was measured to be faster in this."""

    def be(precision: Precision) -> None:
        def pick(name, device):
            return precision if name == "auto" else Precision(name)

        monkeypatch.setattr(emcache.studies.arithmetic, "pick_precision", pick)

    return be


def precisions(study: Study) -> list[str]:
    cells = [cell.request.precision for cell in study.cells]
    return [*cells, *(gap.precision for gap in study.gaps)]


def test_the_first_machine_answers_for_all(cells: Workspace, study: Study, machine, listener):
    machine(Precision.BFLOAT16)
    first = with_one_precision(cells, study, "cpu", listener, keep=True)
    assert precisions(first) == ["bfloat16", "float32", "bfloat16"]
    assert listener.lines == []
    machine(Precision.FLOAT32)
    second = with_one_precision(cells, study, "cpu", listener, keep=True)
    assert second == first
    (said,) = listener.lines
    assert "study began in bfloat16, and goes on so; this machine is faster in float32." in said
    assert len([name for name in list_record_ids(cells.runs) if "-study-" in name]) == 1
    other = with_one_precision(cells, replace(study, name="other"), "cpu", Quiet(), keep=True)
    assert precisions(other) == ["float32"] * 3


def test_a_plan_keeps_no_answer(cells: Workspace, study: Study, machine):
    machine(Precision.BFLOAT16)
    plan_study(cells, study, "cpu", Quiet())
    assert not [name for name in list_record_ids(cells.runs) if "-study-" in name]


def test_a_study_that_names_its_precision_needs_no_answer(cells: Workspace, study: Study, machine):
    machine(Precision.BFLOAT16)
    named = replace(study, cells=study.cells[1:], gaps=())
    assert with_one_precision(cells, named, "cpu", Quiet(), keep=True) is named
    assert not [name for name in list_record_ids(cells.runs) if "-study-" in name]


def test_a_damaged_answer_is_given_anew(cells: Workspace, study: Study, machine):
    machine(Precision.BFLOAT16)
    with_one_precision(cells, study, "cpu", Quiet(), keep=True)
    (name,) = [name for name in list_record_ids(cells.runs) if "-study-" in name]
    (cells.runs / name / "record.json").write_text("{")
    machine(Precision.FLOAT32)
    again = with_one_precision(cells, study, "cpu", Quiet(), keep=True)
    assert precisions(again) == ["float32"] * 3


def test_a_study_that_moved_has_nothing_left_to_train(cells: Workspace, study: Study, machine):
    machine(Precision.BFLOAT16)
    results, _ = carry_out_study(cells, study, "cpu", Quiet(), None)
    assert [result.trained for result in results] == [1, 1]
    runs = [n for n in list_record_ids(cells.runs) if "-train-head-" in n]
    found = sorted(read_record(cells.runs / name).config["precision"] for name in runs)
    assert found == ["bfloat16", "float32"]
    machine(Precision.FLOAT32)
    assert [plan.left for plan in plan_study(cells, study, "cpu", Quiet())] == [(), ()]
    results, _ = carry_out_study(cells, study, "cpu", Quiet(), None)
    assert [result.trained for result in results] == [0, 0]
