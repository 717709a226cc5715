"""``emcache chart``: a picture of one kind of answer each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.groups import with_groups
from emcache_cli.options import ChoiceOptions, LabelledChoiceOptions, WorkspaceOption
from emcache_warehouse.charts.kinds import CHARTS, ChartKind

app = typer.Typer(help="Charts of what the warehouse holds.", no_args_is_help=True)

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
