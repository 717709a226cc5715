"""The datasets that a study brings along, so that it runs in an empty workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcache.data.register import add_dataset, stored_root
from emcache.errors import StudyError
from emcache.progress import Reporter
from emcache.storage.workspace import FIRST_NAME, Workspace

_FOUND = ("root", "grey_window", FIRST_NAME)
"""What a workspace's table has by itself: where its copy lies, and what was found in the files."""


@dataclass(frozen=True, slots=True)
class StudyDataset:
    """A dataset's table in a study."""

    name: str
    layout: str
    root: str
    """Its folder, below that of the data."""
    options: Mapping[str, Any]
    """Further options of the layout, as ``emcache.toml`` has them."""


def with_study_datasets(
    workspace: Workspace, datasets: Sequence[StudyDataset], data: Path
) -> Workspace:
    """The workspace as it will be when a study's datasets have been added; nothing is written.

    Args:
        workspace: Where.
        datasets: Of the study.
        data: Folder that their roots start from.

    Raises:
        StudyError: The workspace has a dataset of that name by other options, or there is no folder
            of one that it lacks.
    """
    missing = {}
    there = workspace.dataset_names()
    for dataset in datasets:
        if dataset.name in there:
            _check_alike(workspace, dataset)
        else:
            root = stored_root(workspace, _folder(dataset, data))
            missing[dataset.name] = {"layout": dataset.layout, "root": root, **dataset.options}
    return workspace.with_declared(missing)


def add_study_datasets(
    workspace: Workspace, datasets: Sequence[StudyDataset], data: Path, reporter: Reporter
) -> None:
    """Add the datasets of a study that the workspace lacks.

    Args:
        workspace: Where.
        datasets: Of the study.
        data: Folder that their roots start from.
        reporter: Receives progress.

    Raises:
        StudyError: The workspace has a dataset of that name by other options, or there is no folder
            of one that it lacks; nothing has been added.
        EmcacheError: As :func:`emcache.data.register.add_dataset`.
    """
    there = workspace.dataset_names()
    for dataset in datasets:
        if dataset.name in there:
            _check_alike(workspace, dataset)
        else:
            _folder(dataset, data)
    for dataset in datasets:
        if dataset.name not in there:
            root = _folder(dataset, data)
            add_dataset(workspace, dataset.name, dataset.layout, root, dataset.options, reporter)
            reporter.say(f"Dataset {dataset.name} was added from {root}.")


def _folder(dataset: StudyDataset, data: Path) -> Path:
    folder = data / dataset.root
    if not folder.is_dir():
        raise StudyError(
            f"there is no folder {folder} for dataset {dataset.name} of the study; say with --data "
            f"which folder holds {dataset.root}.",
            subject=dataset.name,
        )
    return folder


def _check_alike(workspace: Workspace, dataset: StudyDataset) -> None:
    stored = workspace.dataset_options(dataset.name)
    ours = {key: value for key, value in stored.items() if key not in _FOUND}
    theirs = {"layout": dataset.layout, **dataset.options}
    theirs = {key: value for key, value in theirs.items() if key not in _FOUND}
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if differing:
        key = differing[0]
        raise StudyError(
            f"dataset {dataset.name} of the workspace has {key} = {ours.get(key)!r:.80}, and the "
            f"study {theirs.get(key)!r:.80}; expected the same: rename one of the two, or run the "
            f"study in another workspace.",
            subject=dataset.name,
        )
