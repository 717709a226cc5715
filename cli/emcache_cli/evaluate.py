"""``emcache evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import DeviceOption, FormatOption, WorkspaceOption


def evaluate(
    run: Annotated[str, typer.Argument(help="A trained run: its identifier, or a part of it.")],
    on: Annotated[
        list[str],
        typer.Option(
            "--on", metavar="DATASET", help="What to score it on, or NAME:SPLIT; may be repeated."
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The backbone's weights, if the file has moved."),
    ] = None,
    device: DeviceOption = "auto",
    save_predictions: Annotated[
        bool, typer.Option("--save-predictions", help="Keep predicted and true masks.")
    ] = False,
    chosen: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Score a trained run on other datasets, with the backbone and size it was trained with."""
    from emcache.evaluate import EvaluationOptions, evaluate_run
    from emcache.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.summaries import evaluation_rows

    options = EvaluationOptions(weights, device, save_predictions)
    record = evaluate_run(find_workspace(workspace), run, on, options, Console())
    show_rows(evaluation_rows(record), chosen)
