"""``emcache report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.choosing import Chosen, choosing
from emcache_cli.options import WorkspaceOption


@choosing("label")
def report(
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to; one .html that needs no network.")
    ] = Path("report.html"),
    workspace: WorkspaceOption = None,
    *,
    choice: Chosen,
) -> None:
    """Write everything that the workspace knows as one page.

    With --where, the condition is on the columns of the table runs.
    """
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_report

    draw_report(workspace, out, choice, Console())
