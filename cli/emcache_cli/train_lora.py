"""``emcache train-lora``."""

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


def train_lora(
    datasets: DatasetsArgument,
    backbone: Annotated[str, typer.Option(metavar="NAME", help="As dinov2-small.")],
    weights: Annotated[
        str,
        typer.Option(
            metavar="pretrained|random:SEED|hf:REPOSITORY|NAME|PATH",
            help="Weights of the backbone.",
        ),
    ] = "pretrained",
    longest_edge: Annotated[
        int, typer.Option(metavar="PX", help="Size of the longest edge, floored to whole patches.")
    ] = 1022,
    pixel_size: Annotated[
        float | None,
        typer.Option(metavar="NM", help="One scale for every dataset, instead of --longest-edge."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Rank of the adapters. (default: 16)")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Updates are scaled by alpha / rank. (default: 32)")
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Layers of every block to adapt. (default: attn.qkv,attn.proj)",
        ),
    ] = None,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Take a step's slices through the backbone in so many parts.")
    ] = 1,
    checkpoint: Annotated[
        bool,
        typer.Option("--checkpoint", help="Compute activations twice, to need less device memory."),
    ] = False,
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
    """Train LoRA adapters and a head, once for each seed, and score them on the test slices.

    The backbone runs at every step: nothing is read from the cache.
    """
    from emcache.storage.workspace import find_workspace
    from emcache.training.lora import BackboneChoice, DeviceSavings
    from emcache.training.lora import train_lora as run
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
            "lora_rank": rank,
            "lora_alpha": alpha,
            "lora_targets": targets and "+".join(t.strip() for t in targets.split(",")),
        },
        fields=fields,
    )
    choice = BackboneChoice(backbone, weights, longest_edge)
    savings = DeviceSavings(accumulate, checkpoint)
    run(
        find_workspace(workspace),
        datasets,
        choice,
        options,
        savings,
        Console(),
        delivery(output_format),
    )
