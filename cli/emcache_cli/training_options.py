"""Options that all commands share that train, and the request that they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from emcache_cli.delivery import OutputOptions
from emcache_cli.options import (
    AcceptAuditOption,
    DeviceOption,
    NormaliseOption,
    OverlapOption,
    PrecisionOption,
    TileOption,
)

if TYPE_CHECKING:
    from emcache.cache.find import FeatureRequest
    from emcache.training.plan import TrainingRequest
    from emcache.training.protocol import Protocol


DatasetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="DATASET...", help="What to train on; several are one training."),
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrainingOptions:
    """How to train."""

    PANEL: ClassVar[str] = "Training"

    seeds: Annotated[str, typer.Option(metavar="LIST", help="One run for each: 0-4, or 0,2,7.")] = (
        "0-4"
    )
    epochs: Annotated[int | None, typer.Option(min=1, help="Most epochs. (default: 1000)")] = None
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help="Epochs without a better validation loss. (default: 20; 40 for a U-Net)"
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Of AdamW. (default: 5e-5; 1e-2 where a linear head trains on cached tokens, "
            "1e-3 for a U-Net)"
        ),
    ] = None
    batch: Annotated[int | None, typer.Option(min=1, help="Slices a step. (default: 2)")] = None
    val_split: Annotated[
        Literal["random", "block"] | None,
        typer.Option(help="Validation slices at random, or neighbours. (default: random)"),
    ] = None
    train_slices: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="How many training slices of each dataset, as 1,2,4,all: a run for each and each "
            "seed, on nested subsets.",
        ),
    ] = "all"
    train_subset: Annotated[
        Literal["random", "block"] | None,
        typer.Option(help="Such slices at random, or neighbours. (default: random)"),
    ] = None
    normalise: NormaliseOption = None
    tile: TileOption = None
    overlap: OverlapOption = None
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Any field of the protocol, as weight_decay=1e-3."
        ),
    ] = None
    sampling: Annotated[
        Literal["natural", "balanced"],
        typer.Option(help="How steps draw from several datasets: by size, or as many of each."),
    ] = "natural"
    accept_audit: AcceptAuditOption = False

    def changed_protocol(self, name: str, further: dict[str, Any]) -> Protocol:
        """The protocol of a name with every field that was given.

        Args:
            name: Of the protocol that the settings start from.
            further: Fields that other options give; None leaves one as it is.

        Raises:
            UsageError: A value that cannot be, or a field given twice.
        """
        from emcache.errors import UsageError
        from emcache.training.protocol import find_protocol, parse_fields

        given = {
            "max_epochs": self.epochs,
            "patience": self.patience,
            "learning_rate": self.learning_rate,
            "batch": self.batch,
            "val_split": self.val_split,
            "normalise": self.normalise,
            "tile": self.tile,
            "overlap": self.overlap,
            "train_subset": self.train_subset,
            **further,
        }
        set_fields = parse_fields(self.fields or [])
        twice = [field for field in set_fields if given.get(field) is not None]
        if twice:
            raise UsageError(
                f"{twice[0]} is given by --set and by an option of its own; expected it once.",
                subject=twice[0],
            )
        return find_protocol(name).with_changes({**given, **set_fields})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ComputeOptions:
    """Where and how to compute; the scores differ by rounding alone."""

    PANEL: ClassVar[str] = "Computing"

    device: DeviceOption = "auto"
    precision: PrecisionOption = "auto"
    resident: Annotated[
        Literal["auto", "device", "ram", "disk"],
        typer.Option(help="Where examples wait between epochs."),
    ] = "auto"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BackboneComputeOptions(ComputeOptions):
    """The same for a backbone that runs."""

    accumulate: Annotated[
        int,
        typer.Option(min=1, help="Number of parts in which the backbone takes a step's slices."),
    ] = 1
    checkpoint: Annotated[
        bool,
        typer.Option("--checkpoint", help="Compute activations twice, to need less device memory."),
    ] = False


def training_request(
    datasets: Sequence[str],
    features: FeatureRequest,
    protocol: Protocol,
    training: TrainingOptions,
    computing: ComputeOptions,
    output: OutputOptions,
) -> TrainingRequest:
    """What the options ask for, of the regime ``frozen``."""
    from emcache.training.batches import Residency
    from emcache.training.numbers import parse_seeds
    from emcache.training.plan import TrainingRequest
    from emcache.training.sampling import Sampling

    return TrainingRequest(
        datasets=datasets,
        features=features,
        protocol=protocol,
        seeds=parse_seeds(training.seeds),
        sampling=Sampling(training.sampling),
        resident=Residency(computing.resident),
        device=computing.device,
        precision=computing.precision,
        save_predictions=output.save_predictions,
        accept_audit=training.accept_audit,
    )
