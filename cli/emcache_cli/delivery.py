"""What commands that train write, and how they show it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from emcache_cli.options import Format, FormatOption, WorkspaceOption

if TYPE_CHECKING:
    from emcache.storage.records import Record
    from emcache.training.plan import TrainingRequest


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OutputOptions:
    """What is written, and where."""

    PANEL: ClassVar[str] = "Output"

    save_predictions: Annotated[
        bool,
        typer.Option(
            "--save-predictions", help="Keep predicted and true masks of the test slices."
        ),
    ] = False
    output_format: FormatOption = None
    workspace: WorkspaceOption = None


def deliver_training(request: TrainingRequest, output: OutputOptions, slices: str = "all") -> None:
    """Train, once for each number of slices, and show a row for each run."""
    from emcache.storage.workspace import find_workspace
    from emcache.training.numbers import parse_counts
    from emcache.training.run import train_each
    from emcache_cli.console import Console

    requests = [
        replace(request, protocol=request.protocol.with_changes({"train_slices": count}))
        for count in parse_counts(slices)
    ]
    place, deliver = find_workspace(output.workspace), _delivery(output.output_format)
    train_each(place, requests, Console(), deliver)


def _delivery(chosen: Format | None) -> Callable[[Sequence[Record]], None]:
    """Shows the records of a training, which is forgotten only when they have left the process."""

    def deliver(records: Sequence[Record]) -> None:
        from emcache_cli.console import show_rows
        from emcache_cli.summaries import run_rows

        show_rows(run_rows(records), chosen)
        sys.stdout.flush()

    return deliver
