"""``emcache train-head``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from emcache_cli.options import (
    DeviceOption,
    FormatOption,
    PrecisionOption,
    WorkspaceOption,
    parse_seeds,
)


class Resident(StrEnum):
    """Where tokens wait between epochs."""

    AUTO = "auto"
    DEVICE = "device"
    RAM = "ram"
    DISK = "disk"


class SamplingKind(StrEnum):
    """How steps draw from several datasets."""

    NATURAL = "natural"
    BALANCED = "balanced"


class ValSplit(StrEnum):
    """How validation slices are chosen."""

    RANDOM = "random"
    BLOCK = "block"


class HeadKind(StrEnum):
    """Which head."""

    DECONV = "deconv"
    LINEAR = "linear"


def train_head(
    datasets: Annotated[
        list[str],
        typer.Argument(metavar="DATASET...", help="What to train on; several are one training."),
    ],
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Needed only where the cache leaves a choice."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="pretrained|random:SEED|FILE", help="Likewise.")
    ] = None,
    longest_edge: Annotated[int | None, typer.Option(metavar="PX", help="Likewise.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="float16|float32", help="Likewise.")] = None,
    feature_set: Annotated[
        str | None, typer.Option(metavar="NAME", help="Likewise: its folder's name in cache/.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="LIST", help="One run for each: 0-4, or 0,2,7.")
    ] = "0-4",
    protocol: Annotated[str, typer.Option(metavar="NAME", help="How to train.")] = "paper",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Most epochs. (default: the protocol's, 1000)")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs without a better validation loss. (default: 20)"),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="(default: 5e-5)")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Slices a step. (default: 2)")] = None,
    head: Annotated[
        HeadKind | None,
        typer.Option(help="The study's head or one 1x1 convolution. (default: deconv)"),
    ] = None,
    val_split: Annotated[
        ValSplit | None,
        typer.Option(help="Validation slices at random, or neighbours. (default: random)"),
    ] = None,
    sampling: Annotated[
        SamplingKind,
        typer.Option(help="How steps draw from several datasets: by size, or as many of each."),
    ] = SamplingKind.NATURAL,
    resident: Annotated[
        Resident, typer.Option(help="Where tokens wait between epochs.")
    ] = Resident.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    save_predictions: Annotated[
        bool,
        typer.Option(
            "--save-predictions", help="Keep predicted and true masks of the test slices."
        ),
    ] = False,
    chosen: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Train a head on cached tokens, once for each seed, and score it on the test slices."""
    from emcache.examples import Residency
    from emcache.feature_choice import FeatureRequest
    from emcache.protocol import find_protocol
    from emcache.sampling import Sampling
    from emcache.train_head import HeadOptions
    from emcache.train_head import train_head as run
    from emcache.workspace import find_workspace
    from emcache_cli.console import Console, show_rows
    from emcache_cli.summaries import run_rows

    changes = {
        "max_epochs": epochs,
        "patience": patience,
        "learning_rate": learning_rate,
        "batch": batch,
        "head": None if head is None else head.value,
        "val_split": None if val_split is None else val_split.value,
    }
    options = HeadOptions(
        parse_seeds(seeds),
        find_protocol(protocol).with_changes(changes),
        Sampling(sampling.value),
        Residency(resident.value),
        device,
        precision,
        save_predictions,
    )
    request = FeatureRequest(backbone, weights, longest_edge, dtype, feature_set)
    records = run(find_workspace(workspace), datasets, request, options, Console())
    show_rows(run_rows(records), chosen)
