"""``emcache train-head``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import DeviceOption, FormatOption, PrecisionOption, WorkspaceOption
from emcache_cli.training import (
    AcceptAuditOption,
    BatchOption,
    DatasetsArgument,
    EpochsOption,
    HeadOption,
    LearningRateOption,
    PatienceOption,
    ProtocolOption,
    Resident,
    ResidentOption,
    SamplingKind,
    SamplingOption,
    SavePredictionsOption,
    SeedsOption,
    SetOption,
    ValSplitOption,
    delivery,
    training_options,
)


def train_head(
    datasets: DatasetsArgument,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whose tokens; needed where the cache holds those of several."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="pretrained|random:SEED|hf:REPOSITORY|NAME|PATH",
            help="Weights of the backbone; needed where the cache leaves a choice.",
        ),
    ] = None,
    longest_edge: Annotated[
        int | None,
        typer.Option(
            metavar="PX", help="Longest edge of the slices; needed where the cache leaves a choice."
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(metavar="NM", help="One scale for every dataset, instead of --longest-edge."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float16|float32",
            help="Type of the stored tokens; needed where the cache leaves a choice.",
        ),
    ] = None,
    feature_set: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One feature set by its folder's name in cache/."),
    ] = None,
    seeds: SeedsOption = "0-4",
    protocol: ProtocolOption = "paper",
    epochs: EpochsOption = None,
    patience: PatienceOption = None,
    learning_rate: LearningRateOption = None,
    batch: BatchOption = None,
    head: HeadOption = None,
    val_split: ValSplitOption = None,
    fields: SetOption = None,
    sampling: SamplingOption = SamplingKind.NATURAL,
    resident: ResidentOption = Resident.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    save_predictions: SavePredictionsOption = False,
    accept_audit: AcceptAuditOption = False,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Train a head on cached tokens, once for each seed, and score it on the test slices."""
    from emcache.cache.find import FeatureRequest
    from emcache.storage.workspace import find_workspace
    from emcache.training.head import train_head as run
    from emcache_cli.console import Console

    options = training_options(
        seeds=seeds,
        protocol=protocol,
        sampling=sampling,
        resident=resident,
        device=device,
        precision=precision,
        save_predictions=save_predictions,
        accept_audit=accept_audit,
        changes={
            "max_epochs": epochs,
            "patience": patience,
            "learning_rate": learning_rate,
            "batch": batch,
            "head": head,
            "val_split": val_split,
            "pixel_size_nm": pixel_size,
        },
        fields=fields,
        head_alone=True,
    )
    request = FeatureRequest(
        backbone, weights, longest_edge, dtype, feature_set, pixel_size_nm=pixel_size
    )
    run(find_workspace(workspace), datasets, request, options, Console(), delivery(output_format))
