"""``emcache evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import DeviceOption, FormatOption, WorkspaceOption


def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Trained runs: identifiers or parts of them, or a dataset's name for all runs "
            "that were trained on it.",
        ),
    ],
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
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Score trained runs on other datasets, with the backbone and size they were trained with."""
    from emcache.evaluation.evaluate import EvaluationOptions, evaluate_runs
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.summaries import evaluation_rows

    options = EvaluationOptions(weights, device, save_predictions)
    records = evaluate_runs(find_workspace(workspace), runs, on, options, Console())
    show_rows([row for record in records for row in evaluation_rows(record)], output_format)
