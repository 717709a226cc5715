"""Carrying out a study: what is done already is skipped, what is left is trained.

A training counts as done when some record has its fingerprint, which holds everything that could
change the result but the machine. So a study that was killed goes on where it stopped, one that
grew trains what is new, and trainings made by hand count too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emcache.backbones.registry import find_backbone
from emcache.datasets import Dataset, load_dataset
from emcache.devices import pick_device, pick_precision
from emcache.errors import DatasetError, EmcacheError, StudyError
from emcache.evaluate import EvaluationOptions, evaluate_run, evaluation_key
from emcache.feature_choice import FeatureRequest, choose_feature_set
from emcache.preprocessing import preprocessing_of
from emcache.progress import Quiet, Reporter
from emcache.records import Record, list_record_ids, read_record
from emcache.sampling import epoch_steps, split_validation
from emcache.sources import training_sources
from emcache.studies import Cell, Study
from emcache.train_head import plan_head_training, train_head
from emcache.train_lora import BackboneChoice, DeviceSavings, plan_lora_training, train_lora
from emcache.training_setting import Setting, TrainingOptions
from emcache.weights import PRETRAINED, are_at_hand, find_workspace_weights, is_named
from emcache.workspace import Workspace

_MOST_EPOCHS = 1 << 31


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
        return tuple(seed for seed in self.cell.seeds if seed not in (self.done or ()))

    @property
    def most_steps(self) -> int:
        """Training steps, if no seed stops early."""
        return len(self.left) * self.cell.protocol.max_epochs * self.steps_per_epoch

    @property
    def most_hours(self) -> float | None:
        """Hours of training, if no seed stops early and epochs take as long as earlier ones."""
        if self.seconds_per_epoch is None:
            return None
        return len(self.left) * self.cell.protocol.max_epochs * self.seconds_per_epoch / 3600


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
    workspace: Workspace, study: Study, device: str, reporter: Reporter
) -> list[CellPlan]:
    """What is left of a study and what it costs; nothing is downloaded, extracted or trained.

    Raises:
        UsageError: An unknown device.
    """
    records = _Records(workspace)
    planned: set[str] = set()
    plans = []
    with reporter.task(f"Planning {study.name}", len(study.cells), "cells") as task:
        for cell in study.cells:
            plans.append(_plan(workspace, cell, device, records, planned))
            task.advance()
    return plans


def run_study(
    workspace: Workspace, study: Study, device: str, reporter: Reporter
) -> Iterator[CellResult]:
    """Train what is left of a study, cell by cell.

    A cell that fails is reported and the others go on.

    Raises:
        StudyError: A dataset is not there or cannot be trained on; nothing has been started.
    """
    _check_datasets(workspace, study, reporter)
    for number, cell in enumerate(study.cells, start=1):
        reporter.say(f"{study.name}, cell {number} of {len(study.cells)}: {cell.words}.")
        yield _run(workspace, cell, device, reporter)


def _run(workspace: Workspace, cell: Cell, device: str, reporter: Reporter) -> CellResult:
    before = trained = evaluated = 0
    problems: list[str] = []
    records = _Records(workspace)
    try:
        setting = _setting(workspace, cell, device, reporter)
    except EmcacheError as error:
        return _failed(cell, error, reporter)
    for seed in cell.seeds:
        fingerprint = setting.fingerprint(seed)
        # One seed that fails must not keep the others from being trained.
        try:
            if fingerprint in records.runs:
                before += 1
            else:
                trained += len(_train(workspace, cell, device, [seed], reporter))
                records = _Records(workspace)
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
    records: _Records,
    reporter: Reporter,
) -> int:
    """Score a run elsewhere, where no record says how it scores on what stands there today."""
    recipe = records.recipes[run]
    wanted = [
        name
        for name in cell.evaluate_on
        if name not in cell.train_on
        and not records.is_evaluated(run, load_dataset(workspace, name), recipe)
    ]
    if not wanted:
        return 0
    weights = None if is_named(cell.weights) else cell.weights
    evaluate_run(workspace, run, wanted, EvaluationOptions(weights, device), reporter)
    return len(wanted)


def _train(
    workspace: Workspace, cell: Cell, device: str, seeds: Sequence[int], reporter: Reporter
) -> list[Record]:
    options = _options(cell, device, seeds)
    if cell.regime == "frozen":
        request = _request(workspace, cell, device)
        return train_head(workspace, cell.train_on, request, options, reporter)
    choice = BackboneChoice(cell.backbone, cell.weights, cell.longest_edge)
    savings = DeviceSavings(cell.accumulate, cell.checkpoint)
    return train_lora(workspace, cell.train_on, choice, options, savings, reporter)


def _setting(workspace: Workspace, cell: Cell, device: str, reporter: Reporter) -> Setting:
    options = _options(cell, device, cell.seeds)
    if cell.regime == "frozen":
        request = _request(workspace, cell, device)
        return plan_head_training(workspace, cell.train_on, request, options, reporter)[0]
    choice = BackboneChoice(cell.backbone, cell.weights, cell.longest_edge)
    return plan_lora_training(workspace, cell.train_on, choice, options, reporter)[0]


def _options(cell: Cell, device: str, seeds: Sequence[int]) -> TrainingOptions:
    return TrainingOptions(
        list(seeds),
        cell.protocol,
        cell.sampling,
        device=device,
        precision=cell.precision,
        accept_audit=cell.accept_audit,
    )


def _request(workspace: Workspace, cell: Cell, device: str) -> FeatureRequest:
    weights = find_workspace_weights(workspace, cell.weights, find_backbone(cell.backbone))
    scale = cell.protocol.pixel_size_nm
    precision = pick_precision(cell.precision, pick_device(device))
    edge = cell.longest_edge if scale is None else None
    return FeatureRequest(
        cell.backbone,
        cell.weights,
        edge,
        cell.dtype,
        pixel_size_nm=scale,
        precision=precision,
        weights_sha256=weights.sha256,
    )


def _check_datasets(workspace: Workspace, study: Study, reporter: Reporter) -> None:
    """Every dataset is checked before the first training, not hours after it."""
    for name in study.datasets:
        try:
            _check_labelled(workspace, name, reporter)
        except DatasetError as error:
            raise StudyError(f"study {study.name}: {error}", subject=name) from error


def _check_labelled(workspace: Workspace, name: str, reporter: Reporter) -> None:
    if not load_dataset(workspace, name, reporter).labelled:
        raise DatasetError(
            f"dataset {name} has no masks; training and scores need them: add it again with "
            f"--masks.",
            subject=name,
        )


def _plan(
    workspace: Workspace, cell: Cell, device: str, records: _Records, planned: set[str]
) -> CellPlan:
    spec = find_backbone(cell.backbone)
    extract, token_bytes, steps = 0, 0, 0
    done: tuple[int, ...] | None = None
    problem = None
    try:
        for name in cell.evaluate_on:
            _check_labelled(workspace, name, Quiet())
        sources = training_sources(workspace, cell.train_on, Quiet())
        train, _ = split_validation(
            [source.positions("train") for source in sources.items], cell.protocol
        )
        steps = epoch_steps(train, cell.sampling, cell.protocol.batch)
        if are_at_hand(cell.weights, spec, workspace):
            setting = _setting(workspace, cell, device, Quiet())
            done = tuple(s for s in cell.seeds if setting.fingerprint(s) in records.runs)
        elif cell.weights == PRETRAINED and spec.hub is None:
            problem = f"there are no pretrained weights of {spec.name}"
        elif is_named(cell.weights):
            problem = "weights to be downloaded"
        else:
            problem = f"no weights file {cell.weights}"
        if cell.regime == "frozen" and len(done or ()) < len(cell.seeds):
            for source in sources.items:
                key = f"{cell.backbone} {cell.weights} {_size(cell)} {source.dataset.name}"
                if key not in planned:
                    planned.add(key)
                    here = _cached(workspace, cell, device, source.dataset, problem)
                    extract += 0 if here else len(source.slices)
                    token_bytes += 0 if here else _token_bytes(cell, source.dataset)
    except EmcacheError as error:
        problem = str(error)
    seconds = records.seconds_per_epoch(cell)
    return CellPlan(cell, done, extract, token_bytes, steps, seconds, problem)


def _size(cell: Cell) -> str:
    return f"{cell.longest_edge} {cell.protocol.pixel_size_nm} {cell.dtype} {cell.precision}"


def _cached(
    workspace: Workspace, cell: Cell, device: str, dataset: Dataset, problem: str | None
) -> bool:
    """Whether the dataset's tokens are there; without weights nobody can know."""
    if problem is not None:
        return False
    return choose_feature_set(workspace, dataset, _request(workspace, cell, device)) is not None


def _token_bytes(cell: Cell, dataset: Dataset) -> int:
    spec = find_backbone(cell.backbone)
    scale = cell.protocol.pixel_size_nm
    sizes = preprocessing_of(
        spec.patch, cell.longest_edge, scale, dataset.voxel_size_nm, dataset.name
    )
    tokens = sum(int(np.prod(sizes.grid_of(s.height, s.width))) for s in dataset.labelled)
    return tokens * spec.dim * np.dtype(cell.dtype).itemsize


class _Records:
    """What the workspace's records say of trainings and evaluations."""

    def __init__(self, workspace: Workspace) -> None:
        self.runs: dict[str, str] = {}
        """Identifier of the newest run of each fingerprint."""
        self.recipes: dict[str, Mapping[str, Any]] = {}
        """How the tokens of each run were made."""
        self._evaluations: set[tuple[str, str, str]] = set()
        """Runs with the datasets they were scored on, whole, and the key of what stood there."""
        self._seconds: dict[tuple[Any, ...], float] = {}
        for name in list_record_ids(workspace.runs):
            if not any(kind in name for kind in ("train-head", "train-lora", "evaluate")):
                continue
            try:
                # Sizes and checksums of files are for those who read them.
                record = read_record(workspace.runs / name, verify_files=False)
            except EmcacheError:
                continue
            self._take(record)

    def is_evaluated(self, run: str, dataset: Dataset, recipe: Mapping[str, Any]) -> bool:
        """Whether a record says how a run scores on a dataset as it is today, by either name."""
        key = evaluation_key(dataset, recipe)
        names = (dataset.name, dataset.first_name)
        return any((run, name, key) in self._evaluations for name in names)

    def seconds_per_epoch(self, cell: Cell) -> float | None:
        """Of the newest run that was trained likewise."""
        return self._seconds.get(
            (
                cell.regime,
                cell.backbone,
                cell.longest_edge if cell.protocol.pixel_size_nm is None else None,
                " + ".join(cell.train_on),
                cell.sampling,
                cell.protocol.as_dict()["head"],
            )
        )

    def _take(self, record: Record) -> None:
        # A record says what a study needs, or it counts as none: records may come from elsewhere.
        match record.config:
            case {
                "run_id": str(run),
                "eval_on": list(names),
                "data_keys": list(keys),
                "whole": list(whole),
            } if (
                record.kind == "evaluate"
                and len(names) == len(keys)
                and all(isinstance(x, str) for x in (*names, *keys))
            ):
                scored = zip(names, keys, strict=True)
                self._evaluations |= {(run, name, key) for name, key in scored if name in whole}
            case {"run_fingerprint": str(fingerprint), "recipe": dict(recipe)} if (
                record.kind != "evaluate"
            ):
                self.runs[fingerprint] = record.id
                self.recipes[record.id] = recipe
                self._take_time(record.config)

    def _take_time(self, config: Mapping[str, Any]) -> None:
        names = ("regime", "backbone", "longest_edge", "train_on", "sampling", "head")
        key = tuple(config.get(name) for name in names)
        match config:
            case {"train_seconds": float(seconds), "epochs_run": int(epochs)} if (
                0 < epochs < _MOST_EPOCHS
                and all(isinstance(part, str | int | None) for part in key)
            ):
                self._seconds[key] = seconds / epochs
