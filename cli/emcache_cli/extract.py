"""``emcache extract``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from emcache_cli.groups import with_groups
from emcache_cli.options import (
    BackboneOptions,
    ClusterOption,
    DeviceOption,
    FormatOption,
    OverlapOption,
    PrecisionOption,
    TileOption,
    WorkspaceOption,
)


@with_groups
def extract(
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET...", help="Datasets, or NAME:SPLIT.")
    ],
    backbone: BackboneOptions,
    dtype: Annotated[
        Literal["float16", "float32", "int8"], typer.Option(help="Type of the stored tokens.")
    ] = "float16",
    layers: Annotated[
        str,
        typer.Option(
            metavar="last|lastN|N,N,...",
            help="Blocks to take tokens of, in one pass; each makes a feature set.",
        ),
    ] = "last",
    tokens: Annotated[
        str,
        typer.Option(
            metavar="patch|shift:N",
            help="One token a patch, or N along each edge, from N x N shifted passes.",
        ),
    ] = "patch",
    normalise: Annotated[
        str,
        typer.Option(
            metavar="none|percentile|clahe|histogram:DATASET",
            help="Bring the greys of all slices to one distribution first.",
        ),
    ] = "none",
    tile: TileOption = None,
    overlap: OverlapOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Slices in one forward pass.")] = 4,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    cluster: ClusterOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")
    ] = False,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Compute the patch tokens of every slice, once."""
    from emcache.cache.extract import run_extractions
    from emcache.cache.plan import ExtractOptions, parse_shift, plan_layers
    from emcache.cluster.pool import open_pool
    from emcache.cluster.spec import find_cluster
    from emcache.data.dataset import Selection, load_dataset
    from emcache.data.greys import find_grey_rule
    from emcache.data.tiling import Tiling
    from emcache.models.backbones.registry import find_backbone
    from emcache.models.weights import find_workspace_weights
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.summaries import extraction_row, job_rows

    console = Console()
    place = find_workspace(workspace)
    options = ExtractOptions(
        backbone.backbone,
        backbone.weights,
        backbone.longest_edge,
        dtype,
        precision,
        device,
        batch,
        backbone.pixel_size,
        greys=find_grey_rule(place, normalise, console),
        shift=parse_shift(tokens),
        tiling=Tiling.of(tile, overlap),
    )
    if not dry_run and find_cluster(place, cluster) is not None:
        # A typing mistake is told before workers are waited for.
        for name in datasets:
            load_dataset(place, Selection.parse(name).dataset, console)
        find_workspace_weights(place, backbone.weights, find_backbone(backbone.backbone))
    with open_pool(place, "none" if dry_run else cluster, console, device, precision) as pool:
        if pool is not None:
            options = options.on_workers(pool.identity.device, pool.identity.precision)
        # Every dataset is checked before the first is extracted.
        passes = [
            plan_layers(place, Selection.parse(d), options, layers, console) for d in datasets
        ]
        if dry_run:
            rows = [row for jobs in passes for job in jobs for row in job_rows(job)]
        else:
            rows = [
                extraction_row(job, extraction, console)
                for jobs in passes
                for job, extraction in zip(jobs, run_extractions(jobs, console, pool), strict=True)
            ]
    show_rows(rows, output_format)
