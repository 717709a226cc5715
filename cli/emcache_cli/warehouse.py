"""``emcache warehouse sync | rebuild | check | schema | export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.options import FormatOption, WorkspaceOption

app = typer.Typer()


@app.command()
def sync(workspace: WorkspaceOption = None) -> None:
    """Take in the records that are new."""
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console
    from emcache_cli.upkeep import tell
    from emcache_warehouse.sync import sync as run

    place = find_workspace(workspace)
    tell(run(place.runs, place.warehouse), Console())


@app.command()
def rebuild(workspace: WorkspaceOption = None) -> None:
    """Make the warehouse again from the records alone."""
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console
    from emcache_cli.upkeep import tell
    from emcache_warehouse.sync import rebuild as run

    place = find_workspace(workspace)
    tell(run(place.runs, place.warehouse), Console())


@app.command()
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Make anew what differs from the records.")
    ] = False,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Compare records and warehouse with each other and with their checksums.

    Exits with 1 where a check fails.
    """
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.upkeep import checked, finding_rows, has_failure

    findings = checked(find_workspace(workspace), repair, Console())
    show_rows(finding_rows(findings), output_format)
    if has_failure(findings):
        raise typer.Exit(1)


@app.command()
def schema(
    table: Annotated[str | None, typer.Argument(help="Only this table or view.")] = None,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show every table and view, column by column, with its meaning."""
    from emcache_cli.asking import synced_workspace
    from emcache_cli.console import Console, show
    from emcache_warehouse.schema import describe_schema

    show(describe_schema(synced_workspace(workspace, Console()).warehouse, table), output_format)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write every table and view as Parquet, with a data dictionary."""
    from emcache_cli.asking import synced_workspace
    from emcache_cli.console import Console, show
    from emcache_warehouse.export import export_warehouse

    show(export_warehouse(synced_workspace(workspace, Console()).warehouse, folder), output_format)
