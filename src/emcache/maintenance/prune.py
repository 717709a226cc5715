"""Pruning: leftovers of killed commands, and feature sets that are named or have gone stale."""

from __future__ import annotations

from collections.abc import Sequence

from emcache.cache.feature_set import TRASH_PREFIX, FeatureSet, feature_set_folders
from emcache.data.dataset import load_dataset
from emcache.errors import EmcacheError, StoreError
from emcache.maintenance.leftovers import (
    Leftover,
    find_leftovers,
    folder_bytes,
    kept_leftovers,
    labels_aside,
    remove_leftovers,
)
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace


def prune_cache(
    workspace: Workspace,
    names: Sequence[str],
    *,
    stale: bool,
    dry_run: bool,
    reporter: Reporter,
) -> list[Leftover]:
    """Remove what nobody needs; records are never touched.

    Args:
        workspace: Whose.
        names: Feature sets to remove.
        stale: Also those with a slice that no dataset has any more as it was.
        dry_run: Remove nothing.
        reporter: Hears of datasets being read, and of what stays though it may be a leftover.

    Returns:
        What was removed, or would be.

    Raises:
        StoreError: There is no feature set of a given name; nothing was removed.
        EmcacheError: A dataset cannot be read, so nobody knows what is stale.
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
    pixels = {
        item.pixel_sha256
        for name in workspace.dataset_names()
        for item in load_dataset(workspace, name, reporter).slices
    }
    stale = []
    for folder in feature_set_folders(workspace.cache):
        try:
            slices = FeatureSet.open(folder).slices
        except EmcacheError:
            # What is damaged may be repaired; `cache verify` says so.
            continue
        if any(item.pixel_sha256 not in pixels for item in slices):
            stale.append(folder.name)
    return stale
