"""The doctor: everything that the library knows of the machine and a workspace, in order.

The looks import what they look with inside themselves: a library that cannot be imported is a
finding, too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from emcache.errors import EmcacheError, WorkspaceError
from emcache.findings import Finding, Verdict, guarded, of_error
from emcache.maintenance.machine import (
    look_at_device,
    look_at_device_memory,
    look_at_hub,
    look_at_memory,
    look_at_packages,
)
from emcache.storage.locks import Holder, lock_holders
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


_NAMED = 3


def look_at_locks(workspace: Workspace) -> Iterator[Finding]:
    """Who is at work, and who was killed at it."""
    holders = [
        holder
        for folder in (workspace.root, workspace.cache, workspace.runs)
        for holder in lock_holders(folder)
    ]
    yield from (_lock(holder) for holder in holders)
    if not holders:
        yield Finding("locks", Verdict.PASS, "No command is at work, and none was killed.")


def look_at_leftovers(workspace: Workspace) -> Iterator[Finding]:
    """What killed processes left behind."""
    from emcache.maintenance.prune import find_leftovers

    found = find_leftovers(workspace)
    if not found:
        yield Finding("leftovers", Verdict.PASS, "Killed processes left nothing behind.")
        return
    size = sum(item.bytes for item in found) / 1e9
    named = _listed([f"{item.path.name} ({item.what})" for item in found])
    yield Finding(
        "leftovers",
        Verdict.WARN,
        f"{len(found)} left by killed processes, {size:.3f} GB: {named}.",
        "run the command that was killed again, or remove them with `emcache cache prune`",
    )


def look_at_cache(workspace: Workspace, *, thorough: bool) -> Iterator[Finding]:
    """Whether every feature set is whole.

    Args:
        workspace: Whose cache.
        thorough: Compare every file with its checksum, not only with its size.
    """
    from emcache.cache.feature_set import feature_set_folders
    from emcache.maintenance.repair import verify_cache

    damages = verify_cache(workspace.cache, thorough=thorough)
    for name, group in groupby(damages, key=lambda damage: damage.feature_set):
        first, *others = group
        why = first.why.partition("; ")[0]
        slices = f" (slices {_listed(first.slices)})" if first.slices else ""
        more = f", and {len(others)} more of its files are damaged" if others else ""
        yield Finding(
            "cache",
            Verdict.FAIL,
            f"{name}: {first.file} {why}{slices}{more}.",
            "`emcache cache verify --repair`",
        )
    if not damages:
        count = len(feature_set_folders(workspace.cache))
        how = "every checksum matches" if thorough else "every file is there with its size"
        message = f"{count} feature set{'' if count == 1 else 's'}, {how}." if count else "Empty."
        yield Finding("cache", Verdict.PASS, message)


def _lock(holder: Holder) -> Finding:
    words = f"{holder.words[0].upper()}{holder.words[1:]}"
    if holder.alive:
        return Finding("locks", Verdict.PASS, f"{words} is {holder.what}.")
    if holder.alive is None:
        return Finding(
            "locks",
            Verdict.WARN,
            f"{words} is {holder.what}, or was killed at it: only {holder.host} knows.",
            f"look there with `ps {holder.pid}`; if it has gone, run its command again",
        )
    return Finding(
        "locks",
        Verdict.WARN,
        f"{words} was {holder.what}, and was killed.",
        "it will be taken over by the next command that does the same",
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def examine_machine() -> list[Finding]:
    """Packages, device, memory, and the hub; nothing of it needs a workspace."""
    return [
        *guarded("packages", look_at_packages),
        *guarded("device", look_at_device),
        *guarded("memory", look_at_memory),
        *guarded("device-memory", look_at_device_memory),
        *guarded("hub", look_at_hub),
    ]


def examine_workspace(workspace: Workspace | None, *, thorough: bool = False) -> list[Finding]:
    """Disk, folders, datasets, locks, leftovers and cache; nothing is changed.

    Args:
        workspace: None looks at the disk of the current folder alone.
        thorough: Compare every file of the cache with its checksum.
    """
    findings = guarded("disk", lambda: look_at_disk(workspace))
    if workspace is None:
        return findings
    return [
        *findings,
        *guarded("folders", lambda: look_at_folders(workspace)),
        *guarded("datasets", lambda: look_at_datasets(workspace)),
        *guarded("locks", lambda: look_at_locks(workspace)),
        *guarded("leftovers", lambda: look_at_leftovers(workspace)),
        *guarded("cache", lambda: look_at_cache(workspace, thorough=thorough)),
    ]
