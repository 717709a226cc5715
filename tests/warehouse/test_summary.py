"""The summary of a report: true to the records, and with a next step for what is missing."""

from __future__ import annotations

import re

import polars as pl
import pytest

from emcache.storage.workspace import Workspace, init_workspace
from emcache_warehouse.choice import EVERYTHING
from emcache_warehouse.report.page import EXPLORER_MARK, write_report
from emcache_warehouse.report.summary import _soundness, _steps, summary


@pytest.fixture
def place(made_up) -> Workspace:
    return init_workspace(made_up.root)[0]


def said(made_up, place: Workspace):
    made_up.sync()
    return summary(place, EVERYTHING)


def test_an_empty_workspace_has_a_first_step(made_up, place):
    section = said(made_up, place)
    assert section.notes == ["Next: add a dataset with `emcache dataset add`."]
    assert section.tables == []


def test_the_best_of_each_dataset_and_what_transfer_loses(made_up, place):
    for seed in range(3):
        for name, iou in (("vnc", 0.8), ("lucchi", 0.6)):
            run = made_up.train(
                [name],
                seed,
                counts=made_up.counts([name], 12, iou=iou),
                setup_fingerprint=name,
                weights="file:a@b",
            )
            if name == "lucchi":
                counts = made_up.counts(["vnc"], 12, iou=0.2)
                made_up.evaluate(run, "vnc", counts=counts)
    for name in ("vnc", "lucchi"):
        made_up.dataset(name)
    section = said(made_up, place)
    (table,) = section.tables
    lucchi, vnc = table.rows
    assert [lucchi[0], vnc[0]] == ["lucchi", "vnc"]
    assert float(vnc[2]) == pytest.approx(0.8, abs=0.03)
    low, high = map(float, vnc[3].split(" to "))
    assert low < float(vnc[2]) < high
    assert vnc[4].endswith("trained on lucchi")
    assert float(vnc[5]) == pytest.approx(0.2, abs=0.03)
    assert lucchi[4:] == ["\N{EN DASH}", ""]
    text = " ".join(section.notes)
    assert text.startswith("6 runs of 2 setups (frozen of dinov2-small), trained on lucchi; vnc.")
    lost = re.search(r"On vnc the best setup .* \(lucchi\) scores ([\d.]+) less", text)[1]
    assert float(lost) == pytest.approx(float(vnc[2]) - float(vnc[5]), abs=0.0011)
    assert "Not audited, so it is open whether masks belong to their slices: lucchi, vnc." in text
    assert "more seeds" not in text
    assert "pretrained weights" not in text
    assert "emcache evaluate" not in text


def test_scores_of_slices_that_were_learned_from_are_not_the_best(made_up, place):
    made_up.dataset("vnc")
    counts = pl.concat(
        [
            made_up.counts(["vnc"], 12, iou=0.5),
            # The same tissue among the test slices, and what a run was trained on.
            made_up.counts(["vnc"], 12, iou=0.95, from_training=0).with_columns(
                slice_id=pl.format("seen-{}", "slice_id")
            ),
            made_up.counts(["vnc"], 12, split="train", iou=0.95, from_training=0),
        ]
    )
    made_up.train(["vnc"], counts=counts)
    (table,) = said(made_up, place).tables
    assert float(table.rows[0][2]) == pytest.approx(0.5, abs=0.05)


def test_what_is_weak_gets_a_step(made_up, place):
    made_up.dataset("vnc")
    made_up.dataset("lucchi")
    made_up.train(["vnc"], n_slices=3, nothing_learned="the loss stands still")
    section = said(made_up, place)
    text = "\n".join(section.notes)
    for step in (
        "check the masks with `emcache dataset audit lucchi`",
        "look at the 1 runs that learned nothing",
        "repeat with pretrained weights",
        "more seeds (`--seeds 0-2`): vnc has 1",
        "annotate more test slices of vnc: 3 are too few",
        "emcache evaluate RUN --on DATASET",
    ):
        assert step in text, step
    assert section.tables[0].rows[0][3] == "none: one run and 3 slices"
    assert "untrained" in section.tables[0].rows[0][1]


def test_the_report_begins_with_it_and_links_explorers(made_up, place, tmp_path):
    made_up.dataset("vnc")
    made_up.sync()
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "see this.html").write_bytes(b"<html>" + EXPLORER_MARK)
    (folder / "other.html").write_bytes(b"<html>")
    write_report(place, folder / "report.html")
    text = (folder / "report.html").read_text()
    assert text.index('id="summary"') < text.index('id="scores"') < text.index('id="run"')
    assert '<a href="see%20this.html">Explorer of tokens (see this.html)</a>' in text
    assert "other.html" not in text


def test_what_audits_found_is_said_and_the_gravest_comes_first():
    names = ["a", "b", "c", "d", "e"]
    audits = {"a": "pass", "b": "fail", "c": "warn", "d": "pass"}
    assert list(_soundness(names, audits)) == [
        "The masks of a, d fit their slices (audit passed).",
        "The audit of c passed with warnings, which stand below.",
        "The audit of b failed: masks may belong to other slices, so scores mean little.",
        "Not audited, so it is open whether masks belong to their slices: e.",
    ]
    steps = list(_steps({"runs": 0}, [], names, audits))
    assert steps[0].startswith("mend the pairing of b; `emcache dataset audit b`")
    assert steps[1] == "check the masks with `emcache dataset audit e`."
    assert steps[2].startswith("train a first head with `emcache train-head a")
