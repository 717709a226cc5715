"""``emcache weights add | list | remove``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import FormatOption, WorkspaceOption

app = typer.Typer()


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call them, in every table and folder name.")],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A file, an index of shards, or a folder.")
    ],
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Check that they fit this backbone.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Give a weights file a short name, to be used as --weights NAME."""
    from emcache.models.loading import add_weights
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console

    add_weights(find_workspace(workspace), name, path, backbone, Console())


@app.command("list")
def list_(output_format: FormatOption = None, workspace: WorkspaceOption = None) -> None:
    """List the workspace's short names, and whether their files are as they were.

    Exit code 1 where one changed or is missing.
    """
    from emcache.models.loading import list_weights
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows

    listed = list_weights(find_workspace(workspace))
    if not listed:
        Console().say("No short names yet; emcache weights add makes one.")
    rows = [
        {
            "weights": item.short.name,
            "state": item.state,
            "sha256": item.short.sha256,
            "path": item.short.stored,
        }
        for item in listed
    ]
    show_rows(rows, output_format)
    if any(item.state != "unchanged" for item in listed):
        raise typer.Exit(1)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A short name.")], workspace: WorkspaceOption = None
) -> None:
    """Free a short name; the file stays."""
    from emcache.models.weights.short_names import remove as remove_name
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console

    short = remove_name(find_workspace(workspace), name)
    Console().say(f"The short name {name} is free; it stood for {short.path}.")
