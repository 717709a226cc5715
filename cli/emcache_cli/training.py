"""Options that every command shares that trains, and what they come to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emcache_cli.options import Format

if TYPE_CHECKING:
    from emcache.storage.records import Record
    from emcache.training.setting import TrainingOptions


class Resident(StrEnum):
    """Where examples wait between epochs."""

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


DatasetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="DATASET...", help="What to train on; several are one training."),
]
SeedsOption = Annotated[str, typer.Option(metavar="LIST", help="One run for each: 0-4, or 0,2,7.")]
ProtocolOption = Annotated[str, typer.Option(metavar="NAME", help="How to train.")]
EpochsOption = Annotated[
    int | None, typer.Option(min=1, help="Most epochs. (default: the protocol's, 1000)")
]
PatienceOption = Annotated[
    int | None, typer.Option(min=1, help="Epochs without a better validation loss. (default: 20)")
]
LearningRateOption = Annotated[
    float | None, typer.Option(help="(default: 5e-5; 1e-2 where --head linear trains alone)")
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Slices a step. (default: 2)")]
HeadOption = Annotated[
    HeadKind | None,
    typer.Option(help="The study's head, or batch norm and one 1x1 convolution. (default: deconv)"),
]
ValSplitOption = Annotated[
    ValSplit | None,
    typer.Option(help="Validation slices at random, or neighbours. (default: random)"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Any field of the protocol, as weight_decay=1e-3."
    ),
]
SamplingOption = Annotated[
    SamplingKind,
    typer.Option(help="How steps draw from several datasets: by size, or as many of each."),
]
ResidentOption = Annotated[Resident, typer.Option(help="Where examples wait between epochs.")]
SavePredictionsOption = Annotated[
    bool,
    typer.Option("--save-predictions", help="Keep predicted and true masks of the test slices."),
]
AcceptAuditOption = Annotated[
    bool,
    typer.Option(
        "--accept-audit", help="Train though the audit failed; every score will carry the mark."
    ),
]


def training_options(
    *,
    seeds: str,
    protocol: str,
    sampling: SamplingKind,
    resident: Resident,
    device: str,
    precision: str,
    save_predictions: bool,
    accept_audit: bool,
    changes: dict[str, Any],
    fields: list[str] | None,
    head_alone: bool = False,
) -> TrainingOptions:
    """The library's options from those of a command line.

    Args:
        seeds: As typed.
        protocol: Its name.
        sampling: As chosen.
        resident: As chosen.
        device: As typed.
        precision: As typed.
        save_predictions: Whether to keep pictures.
        accept_audit: Whether to train though an audit failed.
        changes: Fields of the protocol that have options; None leaves one as it is.
        fields: Further ones, ``FIELD=VALUE`` each.
        head_alone: Whether nothing but a head is trained.

    Raises:
        UsageError: A value that cannot be.
    """
    from emcache.errors import UsageError
    from emcache.training.batches import Residency
    from emcache.training.protocol import (
        LINEAR_LEARNING_RATE,
        find_protocol,
        parse_fields,
        parse_seeds,
    )
    from emcache.training.sampling import Sampling
    from emcache.training.setting import TrainingOptions

    plain = {k: v.value if isinstance(v, StrEnum) else v for k, v in changes.items()}
    further = parse_fields(fields or [])
    twice = [name for name in further if plain.get(name) is not None]
    if twice:
        raise UsageError(
            f"{twice[0]} is given by --set and by an option of its own; expected it once.",
            subject=twice[0],
        )
    plain |= further
    if head_alone and plain.get("head") == "linear" and plain.get("learning_rate") is None:
        # The study's is for its own head, and far too low for this one.
        plain["learning_rate"] = LINEAR_LEARNING_RATE
    return TrainingOptions(
        parse_seeds(seeds),
        find_protocol(protocol).with_changes(plain),
        Sampling(sampling.value),
        Residency(resident.value),
        device,
        precision,
        save_predictions,
        accept_audit,
    )


def delivery(chosen: Format | None) -> Callable[[Sequence[Record]], None]:
    """Shows the records of a training, which is forgotten only when they have left the process."""

    def deliver(records: Sequence[Record]) -> None:
        from emcache_cli.console import show_rows
        from emcache_cli.summaries import run_rows

        show_rows(run_rows(records), chosen)
        sys.stdout.flush()

    return deliver
