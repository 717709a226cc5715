"""``emcache chart iou | curves``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.options import WorkspaceOption

app = typer.Typer(help="Charts of what the warehouse holds.", no_args_is_help=True)

OutOption = Annotated[
    Path,
    typer.Option(metavar="FILE", help="Where to: .html (needs no network), .png, .svg, .json."),
]


@app.command()
def iou(out: OutOption, workspace: WorkspaceOption = None) -> None:
    """Test scores: a bar for the mean, a dot for every seed, a tick for the paper's figure."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_iou

    draw_iou(workspace, out, Console())


@app.command()
def curves(out: OutOption, workspace: WorkspaceOption = None) -> None:
    """Training and validation loss by epoch, one line a run."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_curves

    draw_curves(workspace, out, Console())
