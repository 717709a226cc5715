"""``emcache demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new or empty folder to work in.")
    ] = Path("emcache-demo"),
) -> None:
    """Run the main job on two made-up EM-like domains, in about a minute.

    The backbone is untrained: the demo shows the way of working, not how good a model is.
    """
    from emcache_cli.console import Console
    from emcache_cli.demonstration import run_demo

    run_demo(folder, Console())
