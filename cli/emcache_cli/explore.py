"""``emcache explore``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from emcache_cli.groups import with_groups
from emcache_cli.options import CachedTokensOptions, DeviceOption, WorkspaceOption

if TYPE_CHECKING:
    from emcache_cli.exploring import Shown


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SliceOptions:
    """Which slices are shown, and with what."""

    PANEL: ClassVar[str] = "Slices"

    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="ID", help="A slice, as 030 or vnc/030; several too."),
    ] = None
    pick: Annotated[
        Literal["spread", "random", "worst", "median", "best"],
        typer.Option(help="Choose slices at even distances, by chance, or by a run's scores."),
    ] = "spread"
    count: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Slices of each dataset. (default: as many as make 12 in all)",
            show_default=False,
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of --pick random.")] = 0

    def shown(
        self,
        runs: Sequence[str],
        tokens: CachedTokensOptions,
        tokens_of: str | None,
        device: str,
    ) -> Shown:
        """All of it."""
        from emcache_cli.exploring import Shown

        return Shown(
            self.slices or (),
            self.pick,
            self.count,
            self.seed,
            runs,
            tokens.request(),
            tokens_of,
            device,
        )


ShownDatasets = Annotated[
    list[str] | None,
    typer.Argument(metavar="DATASET...", help="NAME or NAME:SPLIT. (default: all)"),
]
RunsOption = Annotated[
    list[str] | None,
    typer.Option("--run", metavar="RUN", help="A trained run that predicts; several too."),
]
TokensOfOption = Annotated[
    str | None,
    typer.Option(
        "--tokens-of",
        metavar="RUN",
        help="Tokens of a trained run's backbone, with its adapter where it has one.",
    ),
]


@with_groups
def explore(
    slices: SliceOptions,
    tokens: CachedTokensOptions,
    datasets: ShownDatasets = None,
    runs: RunsOption = None,
    tokens_of: TokensOfOption = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to; one .html that needs no network.")
    ] = Path("explore.html"),
    edge: Annotated[
        int, typer.Option(metavar="PX", min=16, help="Longest side of a slice's picture.")
    ] = 768,
    components: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Principal components of a token, from which similarities are."
        ),
    ] = 64,
    umap: Annotated[
        bool, typer.Option("--umap", help="Place tokens by UMAP too, if umap-learn is installed.")
    ] = False,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = None,
) -> None:
    """Write one page that shows slices, what their tokens have in common, and mistakes."""
    from emcache_cli.console import Console
    from emcache_cli.exploring import PageLook, explore_datasets

    shown = slices.shown(runs or [], tokens, tokens_of, device)
    explore_datasets(
        workspace, datasets or [], shown, PageLook(edge, components, umap), out, Console()
    )
