"""Options and arguments that several commands share, declared once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

if TYPE_CHECKING:
    from emcache.cache.find import FeatureRequest
    from emcache_warehouse.choice import Choice

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Workspace to work in. (default: $EMCACHE_WORKSPACE, else here and upward)",
        show_default=False,
    ),
]

DeviceOption = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")]

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="local:N|slurm:NAME|tcp://HOST:PORT|none",
        help="Workers that compute, by Dask. (default: what emcache.toml says, else none)",
        show_default=False,
    ),
]

PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="auto|float32|bfloat16",
        help="Arithmetic of the forward pass; auto is whichever the device was measured to be "
        "faster in.",
    ),
]


NormaliseOption = Annotated[
    str | None,
    typer.Option(
        metavar="percentile|clahe|histogram:DATASET",
        help="Bring the greys of all slices to one distribution first. (default: none)",
    ),
]

AcceptAuditOption = Annotated[
    bool,
    typer.Option(
        "--accept-audit", help="Go on though an audit failed; every score will carry the mark."
    ),
]


TileOption = Annotated[
    int | None,
    typer.Option(
        "--tile",
        metavar="PX",
        min=1,
        help="Cut slices into tiles of this edge, in pixels as stored. (default: whole slices)",
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        "--overlap",
        metavar="PX",
        min=0,
        help="Pixels that a tile shares with the next, at least. (default: an eighth of the tile)",
    ),
]


class Format(StrEnum):
    """How a result is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    MARKDOWN = "markdown"
    PARQUET = "parquet"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="How to write the result. (default: table on a terminal, else json)",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BackboneOptions:
    """A backbone that runs."""

    PANEL: ClassVar[str] = "Backbone and sizes"

    backbone: Annotated[str, typer.Option(metavar="NAME", help="As dinov2-small.")]
    weights: Annotated[
        str,
        typer.Option(
            metavar="pretrained|random:SEED|hf:REPOSITORY|NAME|PATH",
            help="Weights of the backbone.",
        ),
    ] = "pretrained"
    longest_edge: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="Size of the longest edge, floored to whole patches. (default: 1022, or that of "
            "the tiles)",
        ),
    ] = None
    pixel_size: Annotated[
        float | None,
        typer.Option(metavar="NM", help="One scale for every dataset, instead of --longest-edge."),
    ] = None

    def request(self) -> FeatureRequest:
        """Which features are meant."""
        from emcache.cache.find import FeatureRequest

        return FeatureRequest(
            self.backbone, self.weights, self.longest_edge, pixel_size_nm=self.pixel_size
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CachedTokensOptions:
    """Tokens from the cache; every option that is left out means whatever the cache holds."""

    PANEL: ClassVar[str] = "Tokens (needed where the cache leaves a choice)"

    backbone: Annotated[str | None, typer.Option(metavar="NAME", help="Whose tokens.")] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="pretrained|random:SEED|hf:REPOSITORY|NAME|PATH",
            help="Weights of the backbone.",
        ),
    ] = None
    longest_edge: Annotated[
        int | None, typer.Option(metavar="PX", min=1, help="Longest edge of the slices.")
    ] = None
    pixel_size: Annotated[
        float | None,
        typer.Option(metavar="NM", help="One scale for every dataset, instead of --longest-edge."),
    ] = None
    dtype: Annotated[
        Literal["float16", "float32", "int8"] | None,
        typer.Option(help="Type of the stored tokens."),
    ] = None
    pca: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Tokens as N principal components (emcache cache convert)."
        ),
    ] = None

    def request(self) -> FeatureRequest:
        """Which features are meant."""
        from emcache.cache.find import FeatureRequest

        return FeatureRequest(
            self.backbone,
            self.weights,
            self.longest_edge,
            self.dtype,
            pixel_size_nm=self.pixel_size,
            components=self.pca,
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ChoiceOptions:
    """What a figure or a table shows."""

    PANEL: ClassVar[str] = "What is shown"

    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="Only rows of which this condition of SQL holds."),
    ] = None
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME", help="Only what is about it; several too."),
    ] = None
    backbones: Annotated[
        list[str] | None,
        typer.Option("--backbone", metavar="NAME", help="Only this one; several too."),
    ] = None
    regimes: Annotated[
        list[str] | None,
        typer.Option("--regime", metavar="frozen|lora|full", help="Only this one."),
    ] = None
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="RUN", help="Only runs with this in their names; several too."
        ),
    ] = None
    latest: Annotated[
        bool,
        typer.Option(
            "--latest",
            help="Of runs that differ in protocol and arithmetic alone, the newest; of "
            "measurements, the newest.",
        ),
    ] = False
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Show runs too that were set aside (emcache runs).")
    ] = False

    def choice(self) -> Choice:
        """The same for the warehouse."""
        from emcache_warehouse.choice import Choice

        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return Choice(**{name: value for name, value in given.items() if value})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LabelledChoiceOptions(ChoiceOptions):
    """What a figure shows, and by what it calls its bars."""

    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Label bars and panels by this column alone."),
    ] = None


def parse_pair(text: str | None, option: str) -> tuple[float, float] | None:
    """Read ``0.1,99.9``; None where nothing was given.

    Raises:
        UsageError: Not two numbers, or the first is not below the second.
    """
    from emcache.errors import UsageError

    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not -float("inf") < low < high < float("inf"):
        raise UsageError(
            f"{option} {text!r} cannot be read; expected two numbers, the lower first, as "
            f"0.1,99.9.",
            subject=text,
        )
    return low, high


def parse_voxel_size(text: str | None) -> list[float] | None:
    """Read ``50,4.6,4.6``; None where nothing was given.

    Raises:
        UsageError: Not three positive numbers.
    """
    from emcache.errors import UsageError

    if text is None:
        return None
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise UsageError(
            f"--voxel-size {text!r} cannot be read; expected Z,Y,X in nanometres, as 50,4.6,4.6.",
            subject=text,
        )
    return sizes
