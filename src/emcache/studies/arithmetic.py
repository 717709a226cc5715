"""One arithmetic for a whole study, whatever machines carry it out.

``auto`` means what the machine was measured to be faster in, and another kind of machine may answer
otherwise. The first answer is kept as a record of the workspace; every later run of a study of that
name, and every worker, takes it.
"""

from __future__ import annotations

from dataclasses import replace

from emcache.errors import EmcacheError
from emcache.models.arithmetic import Precision, pick_precision
from emcache.models.device import pick_device
from emcache.progress import Reporter
from emcache.storage.records import list_record_ids, new_record, read_record
from emcache.storage.workspace import Workspace
from emcache.studies.file import Study

KIND = "study"
"""Of the record."""

_AUTO = "auto"


def with_one_precision(
    workspace: Workspace, study: Study, device: str, reporter: Reporter, *, keep: bool
) -> Study:
    """The study with a precision in place of every ``auto``.

    Args:
        workspace: Where it is carried out.
        study: What.
        device: To train on.
        reporter: Hears where this machine would have answered otherwise.
        keep: Whether the answer is kept, where there is none yet.

    Raises:
        UsageError: An unknown device.
    """
    cells = [cell.request.precision for cell in study.cells]
    if _AUTO not in (*cells, *(gap.precision for gap in study.gaps)):
        return study
    own = pick_precision(_AUTO, pick_device(device))
    known = _known(workspace, study.name)
    if known is None and keep:
        with new_record(workspace.runs, KIND) as draft:
            draft.config = {"study": study.name, "precision": own.value}
            draft.finish()
    precision = known or own
    if precision is not own:
        reporter.say(
            f"{study.name} began in {precision}, and goes on so; this machine is faster in {own}. "
            f"Name a precision in the study for another."
        )
    return replace(
        study,
        cells=tuple(
            replace(cell, request=replace(cell.request, precision=precision.value))
            if cell.request.precision == _AUTO
            else cell
            for cell in study.cells
        ),
        gaps=tuple(
            replace(gap, precision=precision.value) if gap.precision == _AUTO else gap
            for gap in study.gaps
        ),
    )


def _known(workspace: Workspace, name: str) -> Precision | None:
    """The first answer; a record that is damaged or of another version counts as none."""
    for record_id in list_record_ids(workspace.runs):
        if f"-{KIND}-" in record_id:
            try:
                config = read_record(workspace.runs / record_id, verify_files=False).config
                if config.get("study") == name:
                    return Precision(config["precision"])
            except (EmcacheError, KeyError, ValueError):
                continue
    return None
