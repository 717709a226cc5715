"""``emcache few-label``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import typer

from emcache_cli.delivery import OutputOptions, deliver_training
from emcache_cli.groups import with_groups
from emcache_cli.options import AcceptAuditOption, OverlapOption, TileOption
from emcache_cli.training import HeadTokensOptions
from emcache_cli.training_options import ComputeOptions, DatasetsArgument

_METHODS = {"linear": "logistic"}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MethodOptions:
    """What is fitted."""

    PANEL: ClassVar[str] = "Method"

    method: Annotated[
        Literal["prototype", "knn", "forest", "boosting", "linear"],
        typer.Option(help="Distance to the clicks' mean, nearest tokens, trees, or a line."),
    ] = "knn"
    filters: Annotated[
        Literal["none", "beside", "alone"],
        typer.Option(help="For forest: image filters beside the tokens, or without them."),
    ] = "none"
    neighbours: Annotated[int | None, typer.Option(min=1, help="Of knn. (default: 5)")] = None
    trees: Annotated[
        int | None, typer.Option(min=1, help="Of forest and boosting. (default: 100)")
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from 0 to 1 above which a pixel is foreground. (default: 0.5)"),
    ] = None

    @property
    def head(self) -> str:
        """The method as the protocol calls it.

        Raises:
            UsageError: Filters for a method that reads none.
        """
        from emcache.errors import UsageError

        if self.filters == "none":
            return _METHODS.get(self.method, self.method)
        if self.method != "forest":
            raise UsageError(
                f"--filters {self.filters} is for --method forest; found {self.method}.",
                subject=self.filters,
            )
        return "filters" if self.filters == "alone" else "forest-filters"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AnnotationOptions:
    """What is labelled: your own points, or some that are drawn from the masks."""

    PANEL: ClassVar[str] = "Annotations"

    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A CSV of points (slice, row, col, label), a label image (1 background, "
            "2 foreground), or a folder of these.",
        ),
    ] = None
    clicks: Annotated[
        int | None,
        typer.Option(min=1, help="Points drawn on foreground, and as many beside. (default: 5)"),
    ] = None
    scribbles: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of the pixels drawn in strokes instead."),
    ] = None
    from_slices: Annotated[
        int | None, typer.Option(min=1, help="Training slices to draw in. (default: 1)")
    ] = None
    seeds: Annotated[
        str, typer.Option(metavar="LIST", help="One run for each: other slices and points.")
    ] = "0-4"
    tile: TileOption = None
    overlap: OverlapOption = None
    accept_audit: AcceptAuditOption = False


@with_groups
def few_label(
    datasets: DatasetsArgument,
    tokens: HeadTokensOptions,
    method: MethodOptions,
    labels: AnnotationOptions,
    computing: ComputeOptions,
    output: OutputOptions,
) -> None:
    """Segment by a few labelled points on cached tokens, and score that on the test slices."""
    from emcache.errors import UsageError
    from emcache.training.batches import Residency
    from emcache.training.numbers import parse_seeds
    from emcache.training.plan import TrainingRequest
    from emcache.training.protocol import find_protocol

    ways = [labels.annotations, labels.clicks, labels.scribbles]
    if sum(way is not None for way in ways) > 1:
        raise UsageError("--annotations, --clicks and --scribbles are three ways; expected one.")
    protocol = find_protocol("few-label").with_changes(
        {
            "head": method.head,
            "neighbours": method.neighbours,
            "trees": method.trees,
            "threshold": method.threshold,
            "clicks": labels.clicks,
            "scribbles": labels.scribbles,
            "from_slices": labels.from_slices,
            "pixel_size_nm": tokens.pixel_size,
            "tile": labels.tile,
            "overlap": labels.overlap,
        }
    )
    request = TrainingRequest(
        datasets=datasets,
        regime="few-label",
        features=tokens.request(),
        protocol=protocol,
        seeds=parse_seeds(labels.seeds),
        resident=Residency(computing.resident),
        device=computing.device,
        precision=computing.precision,
        save_predictions=output.save_predictions,
        accept_audit=labels.accept_audit,
        annotations=labels.annotations,
    )
    deliver_training(request, output)
