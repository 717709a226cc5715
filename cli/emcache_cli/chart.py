"""``emcache chart``: a picture of one kind of answer each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from emcache_cli.explore import ShownDatasets, SliceOptions
from emcache_cli.groups import with_groups
from emcache_cli.options import (
    CachedTokensOptions,
    ChoiceOptions,
    DeviceOption,
    LabelledChoiceOptions,
    WorkspaceOption,
)
from emcache_warehouse.charts.kinds import CHARTS, ChartKind

app = typer.Typer()

OutOption = Annotated[
    Path,
    typer.Option(metavar="FILE", help="Where to: .html (needs no network), .png, .svg, .json."),
]


def _command(kind: ChartKind) -> Callable[..., None]:
    def labelled(
        out: OutOption, choice: LabelledChoiceOptions, workspace: WorkspaceOption = None
    ) -> None:
        _draw(kind, out, choice, workspace)

    def whole(out: OutOption, workspace: WorkspaceOption = None) -> None:
        _draw(kind, out, ChoiceOptions(), workspace)

    def plain(out: OutOption, choice: ChoiceOptions, workspace: WorkspaceOption = None) -> None:
        _draw(kind, out, choice, workspace)

    if kind.labelled:
        return with_groups(labelled)
    return with_groups(plain) if kind.chooses else whole


def _draw(kind: ChartKind, out: Path, choice: ChoiceOptions, workspace: Path | None) -> None:
    from emcache_cli.asking import synced_workspace
    from emcache_cli.console import Console
    from emcache_cli.drawing import save

    place = synced_workspace(workspace, Console())
    save(kind.draw(place, choice.choice()), out, Console())


for _kind in CHARTS.values():
    if _kind.name == "audit":
        continue  # below, with an argument
    app.command(_kind.name, help=_kind.caption)(_command(_kind))


@app.command()
@with_groups
def table(
    number: Annotated[int, typer.Argument(help="Of the paper: 1 to 5, 7 or 8.")],
    out: OutOption,
    choice: LabelledChoiceOptions,
    workspace: WorkspaceOption = None,
) -> None:
    """One of the paper's tables (arXiv 2602.08505) with our own figures beside it."""
    from emcache_cli.asking import synced_workspace
    from emcache_cli.console import Console
    from emcache_cli.drawing import save
    from emcache_warehouse.charts.paper import table_chart

    database = synced_workspace(workspace, Console()).warehouse
    save(table_chart(database, number, choice.choice()), out, Console())


@app.command(help=CHARTS["audit"].caption)
def audit(
    out: OutOption,
    dataset: Annotated[
        str | None, typer.Argument(help="Which dataset's. (default: the one audited last)")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Draw the newest audit of a dataset."""
    _draw(CHARTS["audit"], out, ChoiceOptions(datasets=[dataset] if dataset else None), workspace)


@app.command()
@with_groups
def tokens(
    slices: SliceOptions,
    features: CachedTokensOptions,
    out: OutOption,
    datasets: ShownDatasets = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also", metavar="BACKBONE", help="A further row: of this backbone; several too."
        ),
    ] = None,
    scored_by: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Whose scores --pick worst|median|best is by."),
    ] = None,
    tokens_of: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN", help="A further row: of a run's backbone with its adapter; several too."
        ),
    ] = None,
    basis: Annotated[
        Literal["joint", "dataset"],
        typer.Option(help="One basis for all slices of a row, or one for each dataset."),
    ] = "joint",
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = None,
) -> None:
    """Draw tokens as colours: slices by columns, backbones and runs by rows."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import save
    from emcache_cli.figures import tokens_figure

    shown = slices.shown([scored_by] if scored_by else [], features, None, device)
    chart = tokens_figure(
        workspace,
        datasets or [],
        shown,
        also or [],
        tokens_of or [],
        Console(),
        own_basis=basis == "dataset",
    )
    save(chart, out, Console())


@app.command()
@with_groups
def predictions(
    slices: SliceOptions,
    run: Annotated[str, typer.Argument(help="A trained run.")],
    out: OutOption,
    datasets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATASET...",
            help="NAME or NAME:SPLIT. (default: the test slices of what it was trained on)",
        ),
    ] = None,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = None,
) -> None:
    """Draw what a run makes of slices: mask, prediction and mistakes."""
    from emcache_cli.console import Console
    from emcache_cli.drawing import save
    from emcache_cli.figures import predictions_figure

    shown = slices.shown([run], CachedTokensOptions(), None, device)
    save(predictions_figure(workspace, run, datasets or [], shown, Console()), out, Console())
