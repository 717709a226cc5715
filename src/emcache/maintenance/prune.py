"""Pruning: leftovers of killed commands, and feature sets that are named or have gone stale."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from emcache.cache.feature_set import (
    PARTIAL_SUFFIX,
    RECEIPTS,
    TRASH_PREFIX,
    FeatureSet,
    feature_set_folders,
)
from emcache.cache.recipe import LABEL_FOLDER
from emcache.data.dataset import load_dataset
from emcache.data.tiles import cut_dataset
from emcache.data.tiling import Tiling, tiling_of
from emcache.errors import EmcacheError, StoreError
from emcache.progress import Quiet, Reporter
from emcache.storage.locks import Holder, held_if_free, lock_holders
from emcache.storage.records import DRAFT_PREFIX, UNFINISHED_PREFIX
from emcache.storage.workspace import Workspace

# Of labels that a repair has put aside.
_ASIDE_SUFFIX = f".{LABEL_FOLDER}{PARTIAL_SUFFIX}"
# Files without a lock are written within minutes; older ones are leftovers.
_IDLE_SECONDS = 3600
# So is what no process writes that may be at work on another host, but for a suspended one.
_FOREIGN_IDLE_SECONDS = 24 * 3600
# Of a disk of this machine: a lock on it is seen by every process of the machine, whatever host
# name a container gives it. On a network's, a lock of another machine may be invisible.
_LOCAL_FILE_SYSTEMS = frozenset(
    {"apfs", "btrfs", "ext3", "ext4", "f2fs", "hfs", "ntfs", "overlay", "tmpfs", "xfs", "zfs"}
)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder that no running command needs."""

    path: Path
    what: str
    """What it is, and what is lost with it."""
    bytes: int
    """Size on the disk."""
    lock: Path | None = None
    """Lock that a command holds while it works on it."""


def labels_aside(folder: Path) -> Path:
    """Where a repair puts a feature set's labels while it computes tokens again.

    One that was killed leaves them there; the next puts them back.
    """
    return folder.with_name(f".{folder.name}{_ASIDE_SUFFIX}")


def find_leftovers(workspace: Workspace) -> list[Leftover]:
    """Everything that killed commands left, and no running one works on.

    Where the note of a lock names a process of another host, nobody here can look for it, and the
    host may be a container that has gone. What it worked on is a leftover only where its lock would
    be seen (a disk of this machine) and nothing was written for a day: a machine that exports its
    disk does not see the locks of those that use it. Whether the lock can be taken decides in the
    end, in :func:`remove_leftovers`. All else of other hosts stays; see :func:`kept_leftovers`.
    """
    holders = _holders(workspace)
    return [
        Leftover(path, what, folder_bytes(path), lock)
        for path, what, lock in _candidates(workspace)
        if path.name.startswith(TRASH_PREFIX)
        or (_is_idle(path) if lock is None else _has_ended(path, holders.get(lock)))
    ]


def kept_leftovers(workspace: Workspace) -> dict[Path, str]:
    """What stays although its command was perhaps killed: why, and what to do, in a sentence."""
    root, holders = workspace.root, _holders(workspace)
    kept = {}
    for path, _, lock in _candidates(workspace):
        holder = None if lock is None else holders.get(lock)
        if holder is not None and holder.alive is None and not _has_ended(path, holder):
            note = holder.path.with_name(f"{holder.path.name}.holder")
            kept[path] = (
                f"{path.relative_to(root)} stays: {holder.words} was {holder.what}, and nobody can "
                f"tell from here whether it still is; once it has ended, run its command again, or "
                f"remove {note.relative_to(root)} and prune again."
            )
    for path in entries(workspace.cache):
        if _is_wanted(path) and _has_ended(path, holders.get(_lock_of(_feature_set_of(path)))):
            kept[path] = (
                f"{path.relative_to(root)} stays: it holds labels that a repair put aside and did "
                f"not put back; `emcache cache verify --repair` does."
            )
    return kept


def remove_leftovers(leftovers: Sequence[Leftover]) -> list[Leftover]:
    """Remove leftovers; those that a command has taken up meanwhile stay.

    Returns:
        What was removed.
    """
    removed = []
    for item in leftovers:
        if item.lock is None:
            remove(item.path)
            removed.append(item)
            continue
        with held_if_free(item.lock, "pruning", Quiet()) as free:
            # The feature set that labels were put aside from may have been finished meanwhile.
            if free and not _is_wanted(item.path):
                remove(item.path)
                removed.append(item)
    return removed


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there; a folder first gives up its name.

    Removing a folder takes a while, and half a feature set would look like a damaged one.
    """
    if path.is_dir() and not path.is_symlink():
        if path.name[0] != ".":
            trash = path.with_name(f"{TRASH_PREFIX}{path.name}")
            shutil.rmtree(trash, ignore_errors=True)
            path = path.rename(trash)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _candidates(workspace: Workspace) -> Iterator[tuple[Path, str, Path | None]]:
    cache, runs = workspace.cache, workspace.runs
    for path in entries(cache):
        if path.name.startswith(TRASH_PREFIX):
            yield path, "a feature set that was being removed", None
        elif _is_aside(path):
            if not _is_wanted(path):
                yield path, "labels that a repair had put aside", _lock_of(_feature_set_of(path))
        elif path.name.endswith(PARTIAL_SUFFIX):
            yield (
                path,
                "an extraction that was not finished; the same command goes on from it",
                _lock_of(path.with_name(path.name.removesuffix(PARTIAL_SUFFIX))),
            )
        elif path.name.endswith(".tmp"):
            yield path, "a file that was being written", None
        else:
            for name in (RECEIPTS, f"{TRASH_PREFIX}{RECEIPTS}"):
                if (path / name).is_dir():
                    yield path / name, "receipts of an extraction that is done", _lock_of(path)
        for labels in entries(path / LABEL_FOLDER):
            if labels.name.startswith(".") and labels.name.endswith(PARTIAL_SUFFIX):
                yield labels, "labels that were being made", None
    for path in entries(runs):
        if path.name.startswith(DRAFT_PREFIX):
            yield path, "a record that was being written", None
        elif path.name.startswith(UNFINISHED_PREFIX) and path.is_dir():
            lock = runs / f"{path.name}.lock"
            yield path, "a training that was not finished; the same command goes on from it", lock
    for path in entries(workspace.root):
        temporary = path.name.startswith((f".{workspace.warehouse.name}.new-", ".emcache.toml."))
        if temporary and not path.name.endswith((".lock", ".holder")):
            yield path, "a file that was being written", None


def _lock_of(folder: Path) -> Path:
    """The lock that an extraction or a repair of a feature set holds."""
    return folder.with_name(f".{folder.name}.lock")


def _is_aside(path: Path) -> bool:
    return path.name[0] == "." and path.name.endswith(_ASIDE_SUFFIX)


def _feature_set_of(aside: Path) -> Path:
    return aside.with_name(aside.name[1:].removesuffix(_ASIDE_SUFFIX))


def _is_wanted(path: Path) -> bool:
    """Whether it holds labels that were put aside from a feature set that stands.

    Nobody could make those again whose masks were corrected since.
    """
    return _is_aside(path) and _feature_set_of(path).is_dir()


def entries(folder: Path) -> list[Path]:
    """What stands in a folder, in the order of names; nothing where it is none, or has gone."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _holders(workspace: Workspace) -> dict[Path, Holder]:
    """Who holds each lock, or held it when it was killed."""
    return {
        holder.path: holder
        for folder in (workspace.cache, workspace.runs, workspace.root)
        for holder in lock_holders(folder)
    }


def _has_ended(path: Path, holder: Holder | None) -> bool:
    """Whether the command that worked on something has, as far as can be told without its lock."""
    if holder is None:
        return True
    if holder.alive is not None:
        return not holder.alive
    # A command that goes on from what was left may write nothing for a while, but took the lock.
    lock = [entry for entry in entries(path.parent) if entry.name.startswith(holder.path.name)]
    return _is_on_local_disk(path) and all(
        _is_idle(entry, _FOREIGN_IDLE_SECONDS) for entry in (path, *lock)
    )


def _is_on_local_disk(path: Path) -> bool:
    """Whether it is certain that all who write there run on this machine's operating system."""
    try:
        # Of two mounts at one place, the later one hides the earlier.
        mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
        place = path.resolve()
    except OSError:
        return False
    within = (mounts.get(str(folder)) for folder in (place, *place.parents))
    return next((kind for kind in within if kind), "").lower() in _LOCAL_FILE_SYSTEMS


def _is_idle(path: Path, seconds: int = _IDLE_SECONDS) -> bool:
    try:
        newest = max(entry.lstat().st_mtime for entry in _walk(path))
    except OSError:
        # Something was renamed or removed as we looked, so somebody is at work there.
        return False
    return time.time() - newest > seconds


def folder_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    total = 0
    for entry in _walk(path):
        with suppress(OSError):
            if not entry.is_dir():
                total += entry.lstat().st_size
    return total


def _walk(path: Path) -> Iterator[Path]:
    """A file or folder and everything below it.

    Unlike ``rglob``, it goes on where another process removes a folder as we look.
    """
    yield path
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            yield Path(folder, name)


def prune_cache(
    workspace: Workspace,
    names: Sequence[str],
    *,
    stale: bool,
    dry_run: bool,
    reporter: Reporter,
) -> list[Leftover]:
    """Remove what is not needed any more; records are never touched.

    Args:
        workspace: Whose.
        names: Feature sets to remove.
        stale: Also those with a slice that no dataset has any more as it was.
        dry_run: Remove nothing.
        reporter: Receives progress, and messages about what stays though it may be a leftover.

    Returns:
        What was removed, or would be.

    Raises:
        StoreError: There is no feature set of a given name; nothing was removed.
        EmcacheError: A dataset cannot be read, so it is not known what is stale.
    """
    there = [folder.name for folder in feature_set_folders(workspace.cache)]
    # What a killed pruning had begun to remove is asked for again.
    there += [
        path.name.removeprefix(TRASH_PREFIX) for path in workspace.cache.glob(f"{TRASH_PREFIX}*")
    ]
    for name in names:
        if name not in there:
            raise StoreError(
                f"there is no feature set {name!r}; `emcache cache list` shows those there are.",
                subject=name,
            )
    going = dict.fromkeys(names, "a feature set, as asked")
    if stale:
        for name in _stale(workspace, reporter):
            going.setdefault(name, "a feature set of slices that no dataset has as they were")
    chosen = find_leftovers(workspace)
    for name, what in going.items():
        folder = workspace.cache / name
        if not folder.is_dir():
            continue
        lock = workspace.cache / f".{name}.lock"
        chosen.append(Leftover(folder, what, folder_bytes(folder), lock))
        aside = labels_aside(folder)
        if aside.is_dir():
            chosen.append(Leftover(aside, "its labels, put aside", folder_bytes(aside), lock))
    going_paths = {item.path for item in chosen}
    for path, why in kept_leftovers(workspace).items():
        if path not in going_paths:
            reporter.say(why)
    return chosen if dry_run else remove_leftovers(chosen)


def _stale(workspace: Workspace, reporter: Reporter) -> list[str]:
    datasets = [load_dataset(workspace, name, reporter) for name in workspace.dataset_names()]
    pixels: dict[Tiling | None, set[str]] = {}
    stale = []
    for folder in feature_set_folders(workspace.cache):
        try:
            feature_set = FeatureSet.open(folder)
        except EmcacheError:
            # What is damaged may be repaired; `cache verify` says so.
            continue
        tiling = tiling_of(feature_set.description)
        if tiling not in pixels:
            pixels[tiling] = {
                item.pixel_sha256
                for dataset in datasets
                for item in cut_dataset(workspace, dataset, tiling, reporter).slices
            }
        if any(item.pixel_sha256 not in pixels[tiling] for item in feature_set.slices):
            stale.append(folder.name)
    return stale
