"""What commands left in a workspace: features, locks, and the remains of killed processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from emcache.maintenance.doctor.findings import Finding, Verdict
from emcache.storage.locks import Holder, lock_holders
from emcache.storage.workspace import Workspace

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
    from emcache.maintenance.verify import verify_cache

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
