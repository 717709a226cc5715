"""Setting runs aside, and taking them back: records beside those of the runs, which stay."""

from __future__ import annotations

from collections.abc import Sequence

from emcache.errors import UsageError
from emcache.records import Record, new_record
from emcache.trained_runs import find_run_id
from emcache.workspace import Workspace

KIND = "run-mark"


def mark_runs(
    workspace: Workspace, runs: Sequence[str], *, hidden: bool, why: str | None
) -> Record:
    """Set runs aside, or take them back; the newest mark of a run counts.

    Args:
        workspace: Where.
        runs: Their identifiers, or parts of which no other run has any.
        hidden: Whether scores and charts leave them out from now on.
        why: The reason, which whoever asks for hidden runs is shown.

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
