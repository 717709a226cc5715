"""``emcache report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.groups import with_groups
from emcache_cli.options import ChoiceOptions, WorkspaceOption


@with_groups
def report(
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to; one .html that needs no network.")
    ] = Path("report.html"),
    workspace: WorkspaceOption = None,
    *,
    choice: ChoiceOptions,
) -> None:
    """Write everything that the workspace knows as one page.

    With --where, the condition is on the columns of the table runs.
    """
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_report

    draw_report(workspace, out, choice.choice(), Console())
