"""Carrying out a study: what is done already is skipped, what is left is trained.

A training counts as done when some record has its fingerprint, which holds everything that could
change the result but the machine. So a study that was killed goes on where it stopped, one that
grew trains what is new, and trainings made by hand count too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emcache.auditing.run import accept_audits, refuse_known_failures
from emcache.cache.find import choose_feature_set
from emcache.data.dataset import Dataset, Selection, load_dataset
from emcache.data.resize import preprocessing_of
from emcache.errors import AuditError, DatasetError, EmcacheError, StudyError
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.models.arithmetic import pick_precision
from emcache.models.backbones.registry import find_backbone
from emcache.models.device import pick_device
from emcache.models.weights import PRETRAINED, are_at_hand, find_workspace_weights, is_named
from emcache.progress import Quiet, Reporter
from emcache.storage.workspace import Workspace
from emcache.studies.arithmetic import with_one_precision
from emcache.studies.datasets import add_study_datasets, with_study_datasets
from emcache.studies.file import Cell, Study, StudyGap
from emcache.studies.records import StudyRecords
from emcache.training.plan import TrainingRequest
from emcache.training.regimes import find_regime
from emcache.training.run import plan_training, train
from emcache.training.sampling import epoch_steps, split_of, training_sources


@dataclass(frozen=True, slots=True)
class CellPlan:
    """What is left of a cell, and what it costs."""

    cell: Cell
    done: tuple[int, ...] | None
    """Seeds that a record holds; None where it cannot be known yet."""
    extract_slices: int
    """Slices that go through the backbone once, to be cached."""
    token_bytes: int
    """Of those slices' tokens."""
    steps_per_epoch: int
    """Of one seed."""
    seconds_per_epoch: float | None
    """As earlier runs of this workspace took, or None where there is none."""
    problem: str | None
    """Why it cannot run yet."""

    @property
    def left(self) -> tuple[int, ...]:
        """Seeds to train."""
        return tuple(seed for seed in self.cell.request.seeds if seed not in (self.done or ()))

    @property
    def most_steps(self) -> int:
        """Training steps, if no seed stops early."""
        return len(self.left) * self.cell.request.protocol.max_epochs * self.steps_per_epoch

    @property
    def most_hours(self) -> float | None:
        """Hours of training, if no seed stops early and epochs take as long as earlier ones."""
        if self.seconds_per_epoch is None:
            return None
        return (
            len(self.left) * self.cell.request.protocol.max_epochs * self.seconds_per_epoch / 3600
        )


@dataclass(frozen=True, slots=True)
class CellResult:
    """What became of a cell."""

    cell: Cell
    done_before: int
    trained: int
    evaluated: int
    problem: str | None
    """Why it stopped, in one sentence."""


def plan_study(
    workspace: Workspace, study: Study, device: str, reporter: Reporter, data: Path | None = None
) -> list[CellPlan]:
    """What is left of a study and what it costs; nothing is downloaded, extracted or trained.

    Args:
        workspace: Where.
        study: What.
        device: To train on.
        reporter: Receives progress.
        data: Folder of the study's own datasets, if not that of its file.

    Raises:
        UsageError: An unknown device.
        StudyError: The workspace has a dataset of the study by other options.
    """
    study = with_one_precision(workspace, study, device, reporter, keep=False)
    workspace = with_study_datasets(workspace, study.own_datasets, data or study.folder)
    records = StudyRecords(workspace)
    planned: set[Any] = set()
    plans = []
    with reporter.task(f"Planning {study.name}", len(study.cells), "cells") as task:
        for cell in study.cells:
            plans.append(_plan(workspace, cell, device, records, planned))
            task.advance()
    return plans


def run_study(
    workspace: Workspace, study: Study, device: str, reporter: Reporter, data: Path | None = None
) -> Iterator[CellResult]:
    """Train what is left of a study, cell by cell.

    A cell that fails is reported and the others go on.

    Args:
        workspace: Where.
        study: What.
        device: To train on.
        reporter: Receives progress.
        data: Folder of the study's own datasets, if not that of its file.

    Raises:
        StudyError: A dataset is not there, cannot be trained on, or failed its audit without
            being accepted; nothing has been trained.
    """
    check_datasets(workspace, study, data or study.folder, reporter)
    for number, cell in enumerate(study.cells, start=1):
        reporter.say(f"{study.name}, cell {number} of {len(study.cells)}: {cell.words}.")
        yield run_cell(workspace, cell, device, reporter)


def trained_runs_of(
    workspace: Workspace, cell: Cell, device: str, records: StudyRecords, reporter: Reporter
) -> list[str]:
    """Identifiers of a cell's runs that a record holds, in the order of the seeds.

    Raises:
        EmcacheError: Its data or its weights are not there.
    """
    plan = plan_training(workspace, request_of(workspace, cell, device), reporter)
    runs = records.runs
    fingerprints = [plan.fingerprint(seed) for seed in cell.request.seeds]
    return [runs[fingerprint] for fingerprint in fingerprints if fingerprint in runs]


def run_cell(workspace: Workspace, cell: Cell, device: str, reporter: Reporter) -> CellResult:
    """Train what is left of a cell, and score it where the study says.

    Args:
        workspace: Where.
        cell: What.
        device: To train on.
        reporter: Receives progress.
    """
    before = trained = evaluated = 0
    problems: list[str] = []
    records = StudyRecords(workspace)
    try:
        plan = plan_training(workspace, request_of(workspace, cell, device), reporter)
    except EmcacheError as error:
        return _failed(cell, error, reporter)
    for seed in cell.request.seeds:
        fingerprint = plan.fingerprint(seed)
        # One seed that fails must not keep the others from being trained.
        try:
            if fingerprint in records.runs:
                before += 1
            else:
                trained += len(train(workspace, replace(plan.request, seeds=(seed,)), reporter))
                records = StudyRecords(workspace)
            run = records.runs[fingerprint]
            evaluated += _evaluate(workspace, cell, run, device, records, reporter)
        except EmcacheError as error:
            problems.append(_failed(cell, error, reporter).problem or "")
    problem = problems[0] if problems else None
    return CellResult(cell, before, trained, evaluated, problem)


def _failed(cell: Cell, error: EmcacheError, reporter: Reporter) -> CellResult:
    reporter.say(f"Error: {cell.words}: {error}")
    return CellResult(cell, 0, 0, 0, str(error))


def _evaluate(
    workspace: Workspace,
    cell: Cell,
    run: str,
    device: str,
    records: StudyRecords,
    reporter: Reporter,
) -> int:
    """Score a run elsewhere, where no record says how it scores on what stands there today."""
    recipe = records.recipes[run]
    wanted = [
        name
        for name in cell.evaluate_on
        if not _is_own_test(cell, Selection.parse(name))
        and not records.is_evaluated(run, *_selected(workspace, name), recipe)
    ]
    if not wanted:
        return 0
    weights = None if is_named(cell.weights) else cell.weights
    evaluate_run(workspace, run, wanted, EvaluationOptions(weights, device), reporter)
    return len(wanted)


def _is_own_test(cell: Cell, selection: Selection) -> bool:
    """Whether the training itself scores these slices."""
    return selection.dataset in cell.request.datasets and selection.split in (None, "test")


def _selected(workspace: Workspace, text: str) -> tuple[Dataset, str | None]:
    selection = Selection.parse(text)
    return load_dataset(workspace, selection.dataset), selection.split


def request_of(workspace: Workspace, cell: Cell, device: str) -> TrainingRequest:
    """What a cell asks for, with the very weights and arithmetic of its tokens.

    Args:
        workspace: Where.
        cell: What.
        device: To train on.

    Raises:
        EmcacheError: Its weights or the device are not there.
    """
    request = cell.request
    if not find_regime(request.regime).has_backbone:
        return replace(request, device=device)
    weights = find_workspace_weights(workspace, cell.weights, find_backbone(cell.backbone))
    precision = pick_precision(request.precision, pick_device(device))
    features = replace(request.features, precision=precision, weights_sha256=weights.sha256)
    return replace(request, features=features, device=device)


def check_datasets(workspace: Workspace, study: Study, data: Path, reporter: Reporter) -> None:
    """Check and audit every dataset before the first training, not hours after it.

    Args:
        workspace: Where.
        study: Whose datasets.
        data: Folder of the study's own ones.
        reporter: Receives progress.

    Raises:
        StudyError: One is not there, cannot be trained on, or failed its audit without being
            accepted.
    """
    try:
        add_study_datasets(workspace, study.own_datasets, data, reporter)
        for name in study.datasets:
            _check_labelled(workspace, name, reporter)
        for gap in study.gaps:
            check_gap(workspace, gap, reporter)
        # Many cells train on the same data; each is audited and judged once.
        for names, accept in dict.fromkeys(
            (c.request.datasets, c.request.accept_audit) for c in study.cells
        ):
            datasets = [load_dataset(workspace, name) for name in names]
            accept_audits(workspace, datasets, accept, reporter)
    except AuditError as error:
        raise StudyError(
            f"study {study.name}: {_accepted_in_a_study(error)}", subject=error.subject
        ) from error
    except DatasetError as error:
        raise StudyError(f"study {study.name}: {error}", subject=error.subject) from error


def _accepted_in_a_study(error: AuditError) -> str:
    """A sentence on the option of a command, for the key of a study."""
    return str(error).replace("--accept-audit", "accept_audit = true in its grid")


def check_gap(workspace: Workspace, gap: StudyGap, reporter: Reporter) -> None:
    """Refuse distances that cannot be measured, before anything is trained.

    Raises:
        DatasetError: There is no such dataset or split, it has one slice alone, or it has no masks
            for distances by class.
    """
    for selection in map(Selection.parse, gap.between):
        slices = selection.of(load_dataset(workspace, selection.dataset, reporter))
        if len(slices) < 2:
            raise DatasetError(
                f"{selection} has one slice; a distance needs at least two on each side: choose a "
                f"larger selection.",
                subject=str(selection),
            )
        if gap.by_class and not all(item.mask for item in slices):
            raise DatasetError(
                f"not every slice of {selection} has a mask, which by_class needs; leave by_class "
                f"out of its [[gap]], or choose a labelled split.",
                subject=str(selection),
            )


def _check_labelled(workspace: Workspace, name: str, reporter: Reporter) -> None:
    if not load_dataset(workspace, name, reporter).labelled:
        raise DatasetError(
            f"dataset {name} has no masks; training and scores need them: add it again with "
            f"--masks.",
            subject=name,
        )


def _plan(
    workspace: Workspace, cell: Cell, device: str, records: StudyRecords, planned: set[Any]
) -> CellPlan:
    request, regime = cell.request, find_regime(cell.request.regime)
    extract, token_bytes, steps = 0, 0, 0
    done: tuple[int, ...] | None = None
    problem = None
    try:
        for name in cell.evaluate_on:
            _check_labelled(workspace, Selection.parse(name).dataset, Quiet())
        tiling = request.features.tiling
        sources = training_sources(workspace, request.datasets, Quiet(), tiling)
        if regime.learns and not regime.fits:
            learned = split_of(sources, request.protocol, request.seeds[0])
            steps = epoch_steps(learned.train, request.sampling, request.protocol.batch)
        problem = _missing_weights(workspace, cell) if regime.has_backbone else None
        if problem is None:
            plan = plan_training(workspace, request_of(workspace, cell, device), Quiet())
            done = tuple(s for s in request.seeds if plan.fingerprint(s) in records.runs)
        cached = regime.has_backbone and not regime.runs_backbone
        if cached and len(done or ()) < len(request.seeds):
            for source in sources.items:
                kind = (request.features, request.precision, source.dataset.name)
                if kind not in planned:
                    planned.add(kind)
                    here = _cached(workspace, cell, device, source.dataset, problem)
                    extract += 0 if here else len(source.slices)
                    token_bytes += 0 if here else _token_bytes(cell, source.dataset)
        if not request.accept_audit:
            refuse_known_failures(workspace, [source.dataset for source in sources.items])
    except AuditError as error:
        problem = _accepted_in_a_study(error)
    except EmcacheError as error:
        problem = str(error)
    seconds = records.seconds_per_epoch(cell)
    return CellPlan(cell, done, extract, token_bytes, steps, seconds, problem)


def _missing_weights(workspace: Workspace, cell: Cell) -> str | None:
    """Why a cell's weights are not at hand; None where they are."""
    spec = find_backbone(cell.backbone)
    if are_at_hand(cell.weights, spec, workspace):
        return None
    if cell.weights == PRETRAINED and spec.hub is None:
        return f"there are no pretrained weights of {spec.name}"
    if is_named(cell.weights):
        return "weights to be downloaded"
    return f"no weights file {cell.weights}"


def _cached(
    workspace: Workspace, cell: Cell, device: str, dataset: Dataset, problem: str | None
) -> bool:
    """Whether the dataset's tokens are there; False where the weights are not known."""
    if problem is not None:
        return False
    features = request_of(workspace, cell, device).features
    return choose_feature_set(workspace, dataset, features) is not None


def _token_bytes(cell: Cell, dataset: Dataset) -> int:
    spec = find_backbone(cell.backbone)
    features = cell.request.features
    sizes = preprocessing_of(
        spec.patch,
        features.longest_edge,
        features.pixel_size_nm,
        dataset.voxel_size_nm,
        dataset.name,
    )
    tokens = sum(int(np.prod(sizes.grid_of(s.height, s.width))) for s in dataset.labelled)
    return tokens * spec.dim * np.dtype(features.dtype).itemsize
