"""What killed commands leave: half-made folders that the next command, or nobody, goes on from."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from emcache.labels import LABEL_FOLDER
from emcache.locks import held_if_free, lock_holders
from emcache.progress import Quiet
from emcache.records import DRAFT_PREFIX
from emcache.store import PARTIAL_SUFFIX, TRASH_PREFIX
from emcache.unfinished import UNFINISHED_PREFIX
from emcache.workspace import Workspace

# Of labels that a repair has put aside.
_ASIDE_SUFFIX = f".{LABEL_FOLDER}{PARTIAL_SUFFIX}"
# What no lock guards is written within minutes; what is older belongs to nobody.
_IDLE_SECONDS = 3600


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
    """Everything that killed commands left, and no running one works on."""
    alive = {
        holder.path
        for folder in (workspace.cache, workspace.runs, workspace.root)
        for holder in lock_holders(folder)
        if holder.alive is not False
    }
    return [
        Leftover(path, what, folder_bytes(path), lock)
        for path, what, lock in _candidates(workspace)
        if (lock not in alive if lock is not None else _is_idle(path))
        or path.name.startswith(TRASH_PREFIX)
    ]


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
    """The lock that whoever extracts or repairs a feature set holds."""
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


def _is_idle(path: Path) -> bool:
    try:
        newest = max(entry.lstat().st_mtime for entry in _walk(path))
    except OSError:
        # Something was renamed or removed as we looked, so somebody is at work there.
        return False
    return time.time() - newest > _IDLE_SECONDS


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
