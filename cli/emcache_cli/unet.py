"""``emcache train-unet``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import typer

from emcache_cli.delivery import OutputOptions, deliver_training
from emcache_cli.groups import with_groups
from emcache_cli.training_options import (
    ComputeOptions,
    DatasetsArgument,
    TrainingOptions,
    training_request,
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SizeOptions:
    """Size of the slices."""

    PANEL: ClassVar[str] = "Sizes"

    longest_edge: Annotated[
        int, typer.Option(metavar="PX", help="Size of the longest edge, floored to 14 px.")
    ] = 1022
    pixel_size: Annotated[
        float | None,
        typer.Option(metavar="NM", help="One scale for every dataset, instead of --longest-edge."),
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class UNetOptions(TrainingOptions):
    """How to train a U-Net."""

    crop: Annotated[
        int | None, typer.Option(min=32, metavar="PX", help="Edge of the crops. (default: 256)")
    ] = None
    augmentation: Annotated[
        Literal["none", "crops", "full"] | None,
        typer.Option(help="Crops alone, or flipped, rotated and changed too. (default: full)"),
    ] = None
    tta: Annotated[
        bool, typer.Option("--tta", help="Predict the mean over eight flips and quarter turns.")
    ] = False


@with_groups
def train_unet(
    datasets: DatasetsArgument,
    sizes: SizeOptions,
    training: UNetOptions,
    computing: ComputeOptions,
    output: OutputOptions,
) -> None:
    """Train a U-Net from scratch, once for each seed, and score it on the test slices.

    It needs no backbone and no weights: it is what a lab would use without a foundation model.
    """
    from emcache.cache.find import FeatureRequest

    protocol = training.changed_protocol(
        "unet",
        {
            "crop": training.crop,
            "augmentation": training.augmentation,
            "tta": training.tta or None,
            "pixel_size_nm": sizes.pixel_size,
        },
    )
    features = FeatureRequest(longest_edge=sizes.longest_edge, pixel_size_nm=sizes.pixel_size)
    request = training_request(datasets, features, protocol, training, computing, output)
    deliver_training(replace(request, regime="supervised"), output, training.train_slices)
