"""``emcache chart``: a picture of one kind of answer each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.choosing import Chosen, choosing
from emcache_cli.options import WorkspaceOption

app = typer.Typer(help="Charts of what the warehouse holds.", no_args_is_help=True)

OutOption = Annotated[
    Path,
    typer.Option(metavar="FILE", help="Where to: .html (needs no network), .png, .svg, .json."),
]


@app.command()
@choosing()
def iou(out: OutOption, choice: Chosen, workspace: WorkspaceOption = None) -> None:
    """Test scores: a bar for the mean, a dot for every seed, a tick for the paper's figure."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_iou

    draw_iou(workspace, out, choice, Console())


@app.command()
@choosing()
def curves(out: OutOption, choice: Chosen, workspace: WorkspaceOption = None) -> None:
    """Training and validation loss by epoch, one line a run."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_curves

    draw_curves(workspace, out, choice, Console())


@app.command()
@choosing()
def table(
    number: Annotated[int, typer.Argument(help="Of the paper: 1 to 5, 7 or 8.")],
    out: OutOption,
    choice: Chosen,
    workspace: WorkspaceOption = None,
) -> None:
    """One of the paper's tables (arXiv 2602.08505) with our own figures beside it."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_table

    draw_table(workspace, number, out, choice, Console())


@app.command("paper-comparison")
@choosing()
def paper_comparison(out: OutOption, choice: Chosen, workspace: WorkspaceOption = None) -> None:
    """Every score of the paper with our own figures beside it."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_paper_comparison

    draw_paper_comparison(workspace, out, choice, Console())


@app.command()
def audit(
    out: OutOption,
    dataset: Annotated[
        str, typer.Argument(help="Which dataset's. (default: the one audited last)")
    ] = "",
    workspace: WorkspaceOption = None,
) -> None:
    """How well every mask fits every image, and the slices whose own masks fit worst."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_audit

    draw_audit(workspace, dataset, out, Console())


@app.command()
@choosing("label")
def gap(out: OutOption, choice: Chosen, workspace: WorkspaceOption = None) -> None:
    """How far apart domains lie: every pair, and what LoRA did to the distances."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_gap

    draw_gap(workspace, out, choice, Console())


@app.command()
@choosing("label")
def pca(out: OutOption, choice: Chosen, workspace: WorkspaceOption = None) -> None:
    """Slices in the plane of their first two principal components; hover shows the slice."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_pca

    draw_pca(workspace, out, choice, Console())


@app.command()
@choosing("label")
def transfer(out: OutOption, choice: Chosen, workspace: WorkspaceOption = None) -> None:
    """What runs lose on other datasets, against the distance to them."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_transfer

    draw_transfer(workspace, out, choice, Console())


@app.command()
@choosing("label")
def cost(out: OutOption, choice: Chosen, workspace: WorkspaceOption = None) -> None:
    """Seconds and bytes of the cache, against the seconds that training saved."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_cost

    draw_cost(workspace, out, choice, Console())


@app.command()
def bench(out: OutOption, workspace: WorkspaceOption = None) -> None:
    """How far each benchmark is beyond its target, and how time grows with the slices."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import draw_bench

    draw_bench(workspace, out, Console())
