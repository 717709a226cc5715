"""Trained runs by their names, for commands that need nothing else of them."""

from __future__ import annotations

from collections.abc import Sequence

from emcache.errors import RecordError
from emcache.storage.records import list_record_ids
from emcache.storage.workspace import Workspace

RUN_KINDS = ("train-head", "train-lora", "train-full", "few-label", "train-unet", "zero-shot")
"""Kinds of the records of trained runs, one for each regime."""

_NAMED_RUNS = 5


def list_run_ids(workspace: Workspace) -> list[str]:
    """Identifiers of the trained runs, oldest first."""
    return [name for name in list_record_ids(workspace.runs) if any(k in name for k in RUN_KINDS)]


def find_run_id(workspace: Workspace, text: str) -> str:
    """The identifier of a run, from it or from a part of it that no other run has.

    Raises:
        RecordError: There is none, or there are several.
    """
    runs = list_run_ids(workspace)
    found = [text] if text in runs else [name for name in runs if text and text in name]
    if len(found) != 1:
        shown = _listed(found or runs)
        what = (
            f"{len(found)} runs match {text!r:.200}" if found else f"there is no run {text!r:.200}"
        )
        raise RecordError(
            f"{what}; {'say which one' if found else 'trained runs here'}: {shown}.", subject=text
        )
    return found[0]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_RUNS
    listed = ", ".join(reversed(names[-_NAMED_RUNS:]))
    return (listed or "none") + (f" and {more} more" if more > 0 else "")
