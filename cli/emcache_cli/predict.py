"""``emcache predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.options import (
    DeviceOption,
    FormatOption,
    WorkspaceOption,
    parse_pair,
    parse_voxel_size,
)


def predict(
    run: Annotated[str, typer.Argument(help="A trained run: its identifier, or a part of it.")],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Images, stacks, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the masks go.")],
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the foreground's probability too.")
    ] = False,
    overlays: Annotated[
        bool, typer.Option(help="Write pictures of the slices with the predicted outline.")
    ] = True,
    ome_zarr: Annotated[
        bool | None,
        typer.Option(
            "--ome-zarr/--no-ome-zarr",
            help="Write a volume as OME-Zarr, with labels and a table of its objects. (default: "
            "for inputs that are Zarr)",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that are there; inputs never are.")
    ] = False,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Of the inputs in nm, where the files do not say it."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The backbone's weights, if the file has moved."),
    ] = None,
    grey_window: Annotated[
        str | None,
        typer.Option(
            metavar="BLACK,WHITE",
            help="Values of inputs of more than 8 bits; default: those of the training.",
        ),
    ] = None,
    align_as: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Which dataset of the training the inputs are like; for runs with --align.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Segment images by a trained run, at their own size; they need no masks."""
    from emcache.data.resize import GreyWindow
    from emcache.evaluation.predict import predict as run_prediction
    from emcache.evaluation.predictor import PredictionOptions
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.summaries import prediction_rows

    numbers = parse_pair(grey_window, "--grey-window")
    window = None if numbers is None else GreyWindow(*numbers)
    options = PredictionOptions(
        probabilities=probabilities,
        overlays=overlays,
        voxel_size_nm=parse_voxel_size(voxel_size),
        overwrite=overwrite,
        grey_window=window,
        weights=weights,
        device=device,
        align_as=align_as,
        ome_zarr=ome_zarr,
    )
    files, _ = run_prediction(find_workspace(workspace), run, inputs, out, options, Console())
    show_rows(prediction_rows(files), output_format)
