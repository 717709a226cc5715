"""Setting runs aside, and taking them back: records beside those of the runs, which stay."""

from __future__ import annotations

from collections.abc import Sequence

from emcache.errors import UsageError
from emcache.evaluation.trained_run import find_run_id, list_run_ids
from emcache.storage.records import Record, list_record_ids, new_record, read_record
from emcache.storage.workspace import FIRST_NAME, Workspace

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
