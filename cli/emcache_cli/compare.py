"""``emcache compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import FormatOption, WorkspaceOption


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Each stands for all seeds of its setup."),
    ],
    on: Annotated[
        str | None, typer.Option(metavar="DATASET", help="One test set. (default: all)")
    ] = None,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Say which of several setups is better on the same test slices, and how sure that is."""
    from emcache.storage.run_names import find_run_id
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import show_rows
    from emcache_warehouse.compare import compare_runs
    from emcache_warehouse.sync import sync

    place = find_workspace(workspace)
    sync(place.runs, place.warehouse)
    chosen = [find_run_id(place, run) for run in runs]
    show_rows(compare_runs(place.warehouse, chosen, on), output_format)
