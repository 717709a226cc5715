"""``emcache init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder.")] = Path(),
) -> None:
    """Make a folder a workspace.

    A workspace holds emcache.toml, the cache, the records and the warehouse.
    """
    from emcache.storage.workspace import init_workspace
    from emcache_cli.console import Console

    workspace, new = init_workspace(folder)
    Console().say(
        f"Made {workspace.root} a workspace; next: emcache dataset add NAME --layout ... --root ..."
        if new
        else f"{workspace.root} is a workspace already; nothing was changed."
    )
