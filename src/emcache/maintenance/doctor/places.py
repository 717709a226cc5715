"""The workspace's folders: found, readable, writable, with room on the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emcache.errors import EmcacheError, WorkspaceError
from emcache.maintenance.doctor.findings import Finding, Verdict, of_error
from emcache.storage.workspace import ENVIRONMENT_VARIABLE, Workspace, find_workspace

_ROOM_FOR_FEATURES = 5e9
_ROOM_FOR_RECORDS = 1e8


def look_for_workspace(given: Path | None) -> tuple[Workspace | None, Finding]:
    """The workspace, if there is one, and what is to be said of it.

    Args:
        given: A folder that was named, or None.
    """
    try:
        workspace = find_workspace(given)
    except (EmcacheError, OSError) as error:
        finding = of_error("workspace", error)
        named = given is not None or os.environ.get(ENVIRONMENT_VARIABLE)
        if not named and isinstance(error, WorkspaceError):
            finding = Finding("workspace", Verdict.WARN, finding.message, finding.remedy)
        return None, finding
    try:
        names = workspace.dataset_names()
    except EmcacheError as error:
        return workspace, of_error("workspace", error)
    datasets = ", ".join(names) or "none yet; `emcache dataset add` makes one"
    return workspace, Finding("workspace", Verdict.PASS, f"{workspace.root}; datasets: {datasets}.")


def look_at_folders(workspace: Workspace) -> Iterator[Finding]:
    """Whether the workspace, its cache and its records can be listed and written."""
    problems = [
        Finding("folders", Verdict.FAIL, *problem)
        for folder in (workspace.root, workspace.cache, workspace.runs)
        if (problem := _problem(folder))
    ]
    yield from problems
    if not problems:
        yield Finding("folders", Verdict.PASS, "Workspace, cache and records can be written.")


def look_at_disk(workspace: Workspace | None) -> Iterator[Finding]:
    """Room where features and records go; outside a workspace, in the current folder."""
    free = shutil.disk_usage(workspace.root if workspace else Path.cwd()).free
    message = f"{free / 1e9:.1f} GB are free."
    if free >= _ROOM_FOR_FEATURES:
        yield Finding("disk", Verdict.PASS, message)
        return
    verdict = Verdict.WARN if free >= _ROOM_FOR_RECORDS else Verdict.FAIL
    yield Finding(
        "disk",
        verdict,
        f"{message} Features of a data set may take more.",
        "make room (`emcache cache prune`), and ask with `emcache extract ... --dry-run` first",
    )


def look_at_datasets(workspace: Workspace) -> Iterator[Finding]:
    """Whether the folders that the datasets' slices are in are there."""
    try:
        names = workspace.dataset_names()
    except EmcacheError:
        # The finding of the workspace says so.
        return
    gone = []
    for name in names:
        root = workspace.dataset_options(name).get("root")
        if not isinstance(root, str) or not (workspace.root / root).is_dir():
            gone.append(f"{name} ({root})")
    if gone:
        yield Finding(
            "datasets",
            Verdict.WARN,
            f"The folder of {', '.join(gone)} is not there.",
            f"mount it, or fix `root` in {workspace.config_path}",
        )
    elif names:
        yield Finding("datasets", Verdict.PASS, "The folder of every dataset is there.")


def _problem(folder: Path) -> tuple[str, str] | None:
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        return f"{folder} is not a folder.", f"move it away: `mv {folder} {folder}.old`"
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        return (
            f"{folder} cannot be listed ({error.strerror}).",
            f"`chmod u+rwx {folder}`, or ask its owner",
        )
    try:
        # Without a name, so that nothing appears in the folder.
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return (
            f"{folder} cannot be written ({error.strerror}).",
            f"`chmod u+rwx {folder}`, or make a workspace elsewhere with `emcache init DIR`",
        )
