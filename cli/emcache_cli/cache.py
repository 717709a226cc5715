"""``emcache cache list | verify | convert | prune``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from emcache_cli.options import ClusterOption, FormatOption, WorkspaceOption

app = typer.Typer()


@app.command("list")
def list_(output_format: FormatOption = None, workspace: WorkspaceOption = None) -> None:
    """Show every feature set: what it holds, its size, and how many runs were trained on it."""
    from emcache.storage.workspace import find_workspace
    from emcache_cli.cache_listing import feature_set_rows
    from emcache_cli.console import show_rows

    show_rows(feature_set_rows(find_workspace(workspace)), output_format)


@app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute again what is damaged or missing.")
    ] = False,
    cluster: ClusterOption = None,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Compare every byte of the cache with the checksums taken when it was written.

    Exits with 1 where something is damaged and not repaired.
    """
    from emcache.cluster.pool import open_pool
    from emcache.storage.workspace import find_workspace
    from emcache_cli.cache_tables import verify_and_repair
    from emcache_cli.console import Console, show_rows

    console, place = Console(), find_workspace(workspace)
    with open_pool(place, cluster, console) as pool:
        rows, sound = verify_and_repair(place, repair, console, pool)
    show_rows(rows, output_format)
    if not sound:
        raise typer.Exit(1)


@app.command()
def convert(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="FEATURE-SET...",
            help="Feature sets, by name; principal components of several have one basis.",
        ),
    ],
    dtype: Annotated[
        Literal["float16", "int8"], typer.Option(help="Type of the stored tokens.")
    ] = "float16",
    pca: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Store N principal components, fitted to training slices."
        ),
    ] = None,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Store tokens in fewer bytes, as new feature sets; no backbone runs."""
    from emcache.cache.convert import convert as convert_feature_sets
    from emcache.storage.workspace import find_workspace
    from emcache_cli.cache_tables import conversion_row
    from emcache_cli.console import Console, show_rows

    console, place = Console(), find_workspace(workspace)
    made = convert_feature_sets(place, names, dtype, pca, console)
    rows = [conversion_row(name, one) for name, one in zip(dict.fromkeys(names), made, strict=True)]
    show_rows(rows, output_format)


@app.command()
def prune(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FEATURE-SET]...", help="Feature sets to remove, by name."),
    ] = None,
    stale: Annotated[
        bool,
        typer.Option(help="Also feature sets with slices that no dataset has as they were."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Remove what killed commands left, and the feature sets that are named. Records stay."""
    from emcache.storage.workspace import find_workspace
    from emcache_cli.cache_listing import prune_rows
    from emcache_cli.console import Console, show_rows

    place = find_workspace(workspace)
    show_rows(prune_rows(place, names or (), stale, dry_run, Console()), output_format)
