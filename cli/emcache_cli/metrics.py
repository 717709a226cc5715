"""``emcache metrics``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import FormatOption, WorkspaceOption


def metrics(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Trained runs: identifiers or parts of them, or a dataset's name for all runs "
            "that were trained on it.",
        ),
    ],
    tolerance: Annotated[
        float, typer.Option(metavar="PX", help="Distance within which two boundaries agree.")
    ] = 2.0,
    smallest_object: Annotated[
        int, typer.Option(metavar="PX", help="Pixels of the smallest object that counts.")
    ] = 1,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Measure boundaries and objects in the masks that runs predicted and kept."""
    from emcache.evaluation.measure import MetricOptions, measure_runs
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_warehouse.shapes import shape_scores
    from emcache_warehouse.sync import sync

    place = find_workspace(workspace)
    records = measure_runs(place, runs, MetricOptions(tolerance, smallest_object), Console())
    sync(place.runs, place.warehouse)
    show_rows(shape_scores(place.warehouse, records), output_format)
