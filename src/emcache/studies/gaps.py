"""The distances of a study: measured once everything is trained, and once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emcache.cache.find import FeatureRequest
from emcache.data.greys import find_grey_rule
from emcache.errors import EmcacheError
from emcache.gap.run import GapOptions, GapPlan, carry_out, plan_gaps
from emcache.models.arithmetic import pick_precision
from emcache.models.device import pick_device
from emcache.models.weights import is_named
from emcache.progress import Quiet, Reporter
from emcache.storage.workspace import Workspace
from emcache.studies.datasets import with_study_datasets
from emcache.studies.file import Study, StudyGap, is_through
from emcache.studies.records import StudyRecords
from emcache.studies.run import check_gap, trained_runs_of
from emcache.training.regimes import find_regime


@dataclass(frozen=True, slots=True)
class GapResult:
    """What became of a gap table's distances in one kind of features."""

    gap: StudyGap
    done_before: int
    measured: int
    """Measurements: one, or one for each run whose backbone was trained."""
    problem: str | None
    """Why it stopped, in one sentence."""


def run_study_gaps(
    workspace: Workspace, study: Study, device: str, reporter: Reporter
) -> Iterator[GapResult]:
    """Measure the distances of a study that no record holds.

    One that fails is reported and the others go on.

    Args:
        workspace: Where.
        study: What; its trainings are done, as far as they could be.
        device: To extract on.
        reporter: Receives progress.
    """
    records = StudyRecords(workspace)
    for gap in study.gaps:
        reporter.say(f"{study.name}: {gap.words}.")
        before = measured = 0
        problem = None
        try:
            for plan in _plans(workspace, study, gap, device, records, reporter):
                if plan.key in records.gaps:
                    before += 1
                else:
                    carry_out(workspace, plan, reporter)
                    records.gaps.add(plan.key)
                    measured += 1
        except EmcacheError as error:
            problem = str(error)
            reporter.say(f"Error: {gap.words}: {problem}")
        yield GapResult(gap, before, measured, problem)


def find_gap_problems(
    workspace: Workspace, study: Study, data: Path | None = None
) -> list[tuple[StudyGap, str]]:
    """The distances of a study that cannot be measured, with the reason; nothing is written.

    Args:
        workspace: Where.
        study: What.
        data: Folder of the study's own datasets, if not that of its file.
    """
    place = with_study_datasets(workspace, study.own_datasets, data or study.folder)
    problems = []
    for gap in study.gaps:
        try:
            check_gap(place, gap, Quiet())
        except EmcacheError as error:
            problems.append((gap, str(error)))
    return problems


def _plans(
    workspace: Workspace,
    study: Study,
    gap: StudyGap,
    device: str,
    records: StudyRecords,
    reporter: Reporter,
) -> Iterator[GapPlan]:
    if not find_regime(gap.regime).runs_backbone:
        precision = pick_precision(gap.precision, pick_device(device))
        request = FeatureRequest(
            gap.backbone,
            gap.weights,
            gap.longest_edge,
            gap.dtype,
            precision=precision,
            greys=find_grey_rule(workspace, gap.normalise, reporter),
        )
        options = GapOptions(request, None, gap.levels, gap.by_class, device, gap.align)
        yield plan_gaps(workspace, gap.between, options, reporter)
        return
    # A run's record names its weights; only a file has to be found again.
    through = FeatureRequest(weights=None if is_named(gap.weights) else gap.weights)
    for cell in study.cells:
        if is_through(gap, cell):
            for run in trained_runs_of(workspace, cell, device, records, reporter):
                options = GapOptions(through, run, gap.levels, gap.by_class, device, gap.align)
                yield plan_gaps(workspace, gap.between, options, reporter)
