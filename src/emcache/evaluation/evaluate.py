"""Evaluation: how a trained run scores on other datasets, or on other splits of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emcache.auditing.run import ensure_audited
from emcache.data.dataset import Dataset, Selection, load_dataset
from emcache.data.tiles import check_pictures, cut_dataset
from emcache.errors import DatasetError, UsageError
from emcache.evaluation.trained_run import find_run, warn_of_nothing_learned
from emcache.models.device import pick_device
from emcache.models.weights import describe_untrained, is_untrained
from emcache.progress import Reporter
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Record, list_record_ids, new_record, read_record
from emcache.storage.run_names import find_run_id, list_run_ids
from emcache.storage.workspace import FIRST_NAME, Workspace
from emcache.training.batches import Residency, open_examples
from emcache.training.domains import Domains
from emcache.training.inputs import InputsRequest
from emcache.training.sampling import Sources, check_classes
from emcache.training.scoring import score_slices, seen_by, slice_table
from emcache.training.trainer import Trainer

KIND = "run-mark"


def mark_runs(
    workspace: Workspace, runs: Sequence[str], *, hidden: bool, why: str | None
) -> Record:
    """Set runs aside, or take them back; the newest mark of a run counts.

    Args:
        workspace: Where.
        runs: Their identifiers, or parts of which no other run has any.
        hidden: Whether scores and charts leave them out from now on.
        why: The reason; it is shown with hidden runs.

    Raises:
        UsageError: No reason for setting a run aside.
        RecordError: No such run, or several.
    """
    if hidden and not (why or "").strip():
        raise UsageError(
            "no reason was given; expected one with --why, as --why 'trial with 3 epochs'."
        )
    ids = list(dict.fromkeys(find_run_id(workspace, run) for run in runs))
    with new_record(workspace.runs, KIND) as draft:
        draft.config = {"run_ids": ids, "hidden": hidden, "why": why}
        return draft.finish()


def named_runs(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """Identifiers of the runs that are meant, each once.

    Args:
        workspace: Where.
        names: What a run was trained on (``vnc``, or ``lucchi++ + vnc``) for all such runs, without
            those that were set aside; else an identifier, or a part of it that no other run has.

    Raises:
        RecordError: No such run, or several of the same part.
    """
    chosen: list[str] = []
    for name in names:
        # Other records are read only where they must be: one of them may be damaged.
        is_id = not _is_data(workspace, name) and any(
            name in run for run in list_run_ids(workspace)
        )
        trained = [] if is_id else _trained_on(workspace, name)
        chosen += trained or [find_run_id(workspace, name)]
    return list(dict.fromkeys(chosen))


def _is_data(workspace: Workspace, name: str) -> bool:
    return all(part in workspace.dataset_names() for part in name.split(" + "))


def _trained_on(workspace: Workspace, name: str) -> list[str]:
    """Runs that were trained on data of a name, or of the name that it had first."""
    names = {name}
    if name in workspace.dataset_names():
        names.add(workspace.dataset_options(name).get(FIRST_NAME, name))
    hidden = _hidden(workspace)
    return [
        run
        for run in list_run_ids(workspace)
        if run not in hidden
        and read_record(workspace.runs / run, verify_files=False).config.get("train_on") in names
    ]


def _hidden(workspace: Workspace) -> set[str]:
    """Runs that are set aside, by the newest mark of each."""
    hidden: dict[str, bool] = {}
    for record_id in list_record_ids(workspace.runs):
        if KIND in record_id:
            config = read_record(workspace.runs / record_id, verify_files=False).config
            hidden |= dict.fromkeys(config["run_ids"], config["hidden"])
    return {run for run, aside in hidden.items() if aside}


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What the user may choose about an evaluation."""

    weights: str | None = None
    """Where the backbone's weights are, if not where they were when the run was trained."""
    device: str = "auto"
    save_predictions: bool = False


def evaluate_runs(
    workspace: Workspace,
    names: Sequence[str],
    on: Sequence[str],
    options: EvaluationOptions,
    reporter: Reporter,
) -> list[Record]:
    """Score several trained runs, one after the other; a record each.

    Args:
        workspace: Where.
        names: Identifiers of runs, parts of them, or what runs were trained on.
        on: As for :func:`evaluate_run`; so are the other arguments.
        options: How.
        reporter: Receives progress.

    Raises:
        RecordError: No such run.
        DatasetError: A dataset without masks, or without the split.
    """
    runs = named_runs(workspace, names)
    if len(runs) > 1:
        reporter.say(f"Scoring {len(runs)} runs on {', '.join(on)}.")
    return [evaluate_run(workspace, run, on, options, reporter) for run in runs]


def evaluate_run(
    workspace: Workspace,
    run: str,
    on: Sequence[str],
    options: EvaluationOptions,
    reporter: Reporter,
) -> Record:
    """Score a trained run on labelled slices, with the backbone and size it was trained with.

    Args:
        workspace: Where.
        run: Identifier of the run, or a part of it.
        on: ``NAME`` for every labelled slice of a dataset, ``NAME:SPLIT`` for one split.
        options: How.
        reporter: Receives progress.

    Returns:
        The record; its ``slice_metrics.parquet`` holds the counts.

    Raises:
        RecordError: No such run, or the tokens of today are not those it was trained on.
        DatasetError: A dataset without masks, or without the split.
    """
    trained = find_run(workspace, run)
    device = pick_device(options.device)
    chosen = [
        (cut_dataset(workspace, dataset, trained.tiling, reporter), splits)
        for dataset, splits in _select(workspace, on, reporter)
    ]
    check_pictures(options.save_predictions, trained.tiling)
    for dataset, _ in chosen:
        check_classes(trained.classes.names, f"run {trained.id}", dataset)
    sources = Sources.of([(dataset, dataset.labelled) for dataset, _ in chosen])
    positions = [
        source.first + place
        for source, (_, splits) in zip(sources.items, chosen, strict=True)
        for place, item in enumerate(source.slices)
        if not splits or item.split in splits
    ]
    request = InputsRequest(
        sources,
        trained.features(options.weights),
        options.device,
        trained.protocol,
        next(iter(trained.domains().values()), None),
    )
    inputs = trained.regime.plan(workspace, request, reporter)
    read = "the backbone" if inputs.weights else f"the features of {sources.names}"
    trained.check_recipe(inputs.recipe, read)
    reader = inputs.open(reporter)
    model = trained.load_model(inputs.weights, device, reporter, options.weights)
    failed = _warn_of_failed_audits(workspace, sources, reporter)
    warn_of_nothing_learned(trained, reporter)
    seen = seen_by(trained.record)
    if is_untrained(trained.config["weights"]):
        reporter.say(describe_untrained(trained.config["weights"]))
    domains = Domains.of(sources, trained.protocol.align, trained.norm_domains)
    examples, _ = open_examples(reader, device, Residency.DISK, positions, domains.at)
    with new_record(workspace.runs, "evaluate") as draft:
        trainer = Trainer(
            model, trained.protocol, device, trained.precision, ignores=sources.ignores
        )
        split = trained.protocol.align_on
        for own in domains.slices(split, new=split == "train"):
            domains.adapt(trainer, examples, own)
        pictures = draft if options.save_predictions else None
        batch = trained.protocol.batch
        rows = score_slices(trainer, examples, sources, positions, batch, pictures, seen)
        _tell_seen(rows, reporter)
        draft.config = {
            "run_id": trained.id,
            "regime": trained.config["regime"],
            "train_on": trained.config["train_on"],
            "eval_on": [source.dataset.name for source in sources.items],
            "data_keys": [evaluation_key(s.dataset, trained.recipe) for s in sources.items],
            "audits_failed": failed,
            "whole": [dataset.name for dataset, splits in chosen if not splits],
            "splits": [sorted(splits) for _, splits in chosen],
            "device": device.type,
        }
        draft.write_table("slice_metrics.parquet", slice_table(rows))
        return draft.finish()


def evaluation_key(dataset: Dataset, recipe: Mapping[str, Any]) -> str:
    """Hash of everything on the data's side that a score of a run depends on.

    Args:
        dataset: Whose labelled slices are scored.
        recipe: How the run makes tokens.
    """
    slices = dataset.of_whole_slices.labelled
    return json_sha256(
        {
            "recipe": recipe,
            **dataset.classes.key(),
            "voxel_size_nm": dataset.voxel_size_nm,
            "slices": [[s.id, s.split, s.pixel_sha256, s.mask_sha256] for s in slices],
        }
    )


def _warn_of_failed_audits(
    workspace: Workspace, sources: Sources, reporter: Reporter
) -> list[bool]:
    """Whether the audit of each source failed.

    A score on masks that belong to other slices says nothing of the run.
    """
    states = [ensure_audited(workspace, item.dataset, reporter) for item in sources.items]
    for source, state in zip(sources.items, states, strict=True):
        if state is not None and state.failed:
            reporter.say(
                f"Warning: the audit of {source.dataset.name} failed, and scores on it mean "
                f"little: {state.failed[0]}"
            )
    return [state is not None and bool(state.failed) for state in states]


def _tell_seen(rows: Sequence[Mapping[str, Any]], reporter: Reporter) -> None:
    """Scores on what the run has learned from are not test, and stand apart everywhere."""
    places = {(row["eval_on"], row["slice_id"]): row["slices_from_training"] for row in rows}
    seen = [name for name, place in places.items() if place == 0]
    if seen:
        dataset, slice_id = seen[0]
        reporter.say(
            f"Warning: the run has learned from the pixels of {len(seen)} of {len(places)} slices "
            f"({dataset}/{slice_id} ...): their scores are not test, and are marked as seen."
        )


def _select(
    workspace: Workspace, on: Sequence[str], reporter: Reporter
) -> list[tuple[Dataset, set[str]]]:
    """Datasets once each, with the splits that were named; none means all."""
    wanted: dict[str, list[str | None]] = {}
    for selection in (Selection.parse(text) for text in on):
        wanted.setdefault(selection.dataset, []).append(selection.split)
    chosen = []
    for name, splits in wanted.items():
        dataset = load_dataset(workspace, name, reporter)
        if len(set(splits)) < len(splits) or (None in splits and len(splits) > 1):
            raise UsageError(f"dataset {name} is named twice; name each once.", subject=tuple(on))
        if not dataset.labelled:
            raise DatasetError(
                f"dataset {name} has no masks; a score needs them: use `emcache predict` for "
                f"unlabelled slices.",
                subject=name,
            )
        named = {split for split in splits if split is not None}
        for split in named:
            slices = Selection(name, split).of(dataset)
            if not all(item.mask for item in slices):
                raise DatasetError(
                    f"split {split} of dataset {name} has no masks; a score needs them: use "
                    f"`emcache predict` for unlabelled slices.",
                    subject=split,
                )
        chosen.append((dataset, named))
    return chosen
