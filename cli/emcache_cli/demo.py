"""``emcache demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new or empty folder to work in.")
    ] = Path("emcache-demo"),
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="(default: dinov2-small)")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="pretrained|random:SEED|hf:REPOSITORY|PATH", help="(default: random:0)"
        ),
    ] = None,
) -> None:
    """Run the main job on two made-up EM-like domains, in about a minute.

    Without --weights the backbone is untrained: the demo shows the way of working, not how good a
    model is.
    """
    from emcache_cli.console import Console
    from emcache_cli.demonstration import DEFAULT_BACKBONE, DEFAULT_WEIGHTS, run_demo

    run_demo(folder, backbone or DEFAULT_BACKBONE, weights or DEFAULT_WEIGHTS, Console())
