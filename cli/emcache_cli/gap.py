"""``emcache gap``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import typer

from emcache_cli.groups import with_groups
from emcache_cli.options import (
    CachedTokensOptions,
    DeviceOption,
    FormatOption,
    WorkspaceOption,
)


@with_groups
def gap(
    tokens: CachedTokensOptions,
    datasets: Annotated[
        list[str] | None,
        typer.Argument(metavar="DATASET...", help="Two or more; NAME or NAME:SPLIT."),
    ] = None,
    of: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET",
            help="New slices to compare with those that --run was trained on, in place of pairs; "
            "may be repeated.",
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(help="A trained run: its backbone, with its adapter where it has one."),
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option(
            metavar="slice|cls|token",
            help="Mean of a slice's patch tokens, class token, single patch tokens; may be "
            "repeated. (default: slice)",
        ),
    ] = None,
    by_class: Annotated[
        bool,
        typer.Option("--by-class", help="Also foreground against foreground, token by token."),
    ] = False,
    normalise: Annotated[
        str,
        typer.Option(
            metavar="none|percentile|clahe|histogram:DATASET",
            help="Bring the greys of all slices to one distribution first; a run has its own rule.",
        ),
    ] = "none",
    align: Annotated[
        Literal["none", "standardise", "whiten", "coral", "quantile"],
        typer.Option(help="Align tokens first, by the training slices of each dataset."),
    ] = "none",
    align_to: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="What coral and quantile lead to. (default: the first dataset)",
        ),
    ] = None,
    align_shrinkage: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the diagonal's mean in a covariance."),
    ] = 0.0,
    device: DeviceOption = "auto",
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Measure how far apart datasets lie in a backbone's feature space, pair by pair."""
    from emcache.data.greys import find_grey_rule
    from emcache.errors import UsageError
    from emcache.gap.outside import measure_familiarity
    from emcache.gap.run import GapOptions, measure_gaps
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.gap_summaries import familiarity_rows, gap_rows

    place, console = find_workspace(workspace), Console()
    if of:
        if datasets or run is None:
            raise UsageError(
                "--of compares slices with what a run was trained on; expected --run RUN beside "
                "it, and no other dataset."
            )
        found, _ = measure_familiarity(
            place, run, of, console, weights=tokens.weights, device=device
        )
        show_rows(familiarity_rows(found, output_format), output_format)
        return
    if run is not None and normalise != "none":
        raise UsageError(
            "--normalise and --run are given; expected one of them: a run has a rule of its own."
        )
    options = GapOptions(
        replace(tokens.request(), greys=find_grey_rule(place, normalise, console)),
        run,
        level or ["slice"],
        by_class,
        device,
        align,
        align_to,
        align_shrinkage,
    )
    rows, _ = measure_gaps(place, datasets or [], options, console)
    show_rows(gap_rows(rows, output_format), output_format)
