"""``emcache run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.options import ClusterOption, DeviceOption, FormatOption, WorkspaceOption


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="A grid of trainings.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost, and do nothing.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the study's own datasets lie. (default: beside the study)"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="pretrained|random:SEED|hf:REPOSITORY|NAME|PATH",
            help="Weights in place of those that the study names; untrained ones stay.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    cluster: ClusterOption = None,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Train a whole grid; what a record holds already is skipped.

    Exit code 1 where some of it failed.
    """
    from emcache.cluster.pool import open_pool
    from emcache.cluster.spec import find_cluster
    from emcache.models.weights.short_names import read_short_names
    from emcache.storage.workspace import find_workspace
    from emcache.studies.file import read_study
    from emcache.studies.gaps import find_gap_problems
    from emcache.studies.run import check_datasets, plan_study
    from emcache.studies.sharing import carry_out_study
    from emcache_cli.console import Console, show_rows
    from emcache_cli.study_summaries import (
        gaps_in_words,
        plan_in_words,
        plan_rows,
        result_rows,
    )

    console = Console()
    place = find_workspace(workspace)
    grid = read_study(study, read_short_names(place), weights)
    if dry_run:
        plans = plan_study(place, grid, device, console, data)
        show_rows(plan_rows(plans), output_format)
        console.say(plan_in_words(grid, plans))
        for gap, problem in find_gap_problems(place, grid, data):
            console.say(f"Problem: {gap.words}: {problem}")
        return
    if find_cluster(place, cluster) is not None:
        # What is wrong with the data is told before workers are waited for.
        check_datasets(place, grid, data or grid.folder, console)
    with open_pool(place, cluster, console, device) as pool:
        results, gaps = carry_out_study(place, grid, device, console, pool, data)
    show_rows(result_rows(results), output_format)
    if gaps:
        console.say(gaps_in_words(gaps))
    if any(result.problem for result in results) or any(gap.problem for gap in gaps):
        raise typer.Exit(1)
