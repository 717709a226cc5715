"""The commands that train: ``emcache train-head``, ``train-lora`` and ``train-full``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from emcache_cli.delivery import OutputOptions, deliver_training
from emcache_cli.groups import with_groups
from emcache_cli.options import (
    BackboneOptions,
    CachedTokensOptions,
    DeviceOption,
    PrecisionOption,
)

if TYPE_CHECKING:
    from emcache.cache.find import FeatureRequest
    from emcache.training.plan import TrainingRequest
    from emcache.training.protocol import Protocol


DatasetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="DATASET...", help="What to train on; several are one training."),
]


@dataclass(frozen=True, kw_only=True)
class HeadTokensOptions(CachedTokensOptions):
    """Tokens that a head is trained on."""

    feature_set: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One feature set by its folder's name in cache/."),
    ] = None

    def request(self) -> FeatureRequest:
        """Which features are meant."""
        return replace(super().request(), feature_set=self.feature_set)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train."""

    PANEL: ClassVar[str] = "Training"

    seeds: Annotated[str, typer.Option(metavar="LIST", help="One run for each: 0-4, or 0,2,7.")] = (
        "0-4"
    )
    protocol: Annotated[str, typer.Option(metavar="NAME", help="Where the settings start.")] = (
        "paper"
    )
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Most epochs. (default: the protocol's, 1000)")
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs without a better validation loss. (default: 20)"),
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Of AdamW. (default: 5e-5; 1e-2 where a linear head trains on cached tokens)"
        ),
    ] = None
    batch: Annotated[int | None, typer.Option(min=1, help="Slices a step. (default: 2)")] = None
    head: Annotated[
        Literal["deconv", "deconv-skip", "linear"] | None,
        typer.Option(
            help="The study's head, or batch norm and one 1x1 convolution. (default: deconv)"
        ),
    ] = None
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
    normalise: Annotated[
        str | None,
        typer.Option(
            metavar="percentile|clahe|histogram:DATASET",
            help="Bring the greys of all slices to one distribution first. (default: none)",
        ),
    ] = None
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="patch|shift:N",
            help="A finer grid of tokens, from passes shifted by parts of a patch. "
            "(default: patch)",
        ),
    ] = None
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="last|lastN|N,N,...",
            help="Blocks of the backbone whose tokens the head reads. (default: last)",
        ),
    ] = None
    align: Annotated[
        Literal["none", "standardise", "whiten", "coral", "quantile", "batch-norm"] | None,
        typer.Option(
            help="Align the tokens of each dataset; coral and quantile lead to the first one, and "
            "batch-norm does it in the head. (default: none)"
        ),
    ] = None
    align_on: Annotated[
        Literal["train", "test"] | None,
        typer.Option(
            help="Whose unlabelled tokens say how; test makes it transductive. (default: train)"
        ),
    ] = None
    penalty: Annotated[
        Literal["none", "mmd", "gradient-reversal"] | None,
        typer.Option(
            help="Make the head's hidden tokens alike in all datasets; its weight is "
            "--set penalty_weight=. (default: none)"
        ),
    ] = None
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
    accept_audit: Annotated[
        bool,
        typer.Option(
            "--accept-audit", help="Train though the audit failed; every score will carry the mark."
        ),
    ] = False

    def changed_protocol(self, further: dict[str, Any], *, head_alone: bool = False) -> Protocol:
        """The protocol with every field that was given.

        Args:
            further: Fields that options of other groups give; None leaves one as it is.
            head_alone: Whether nothing but a head is trained.

        Raises:
            UsageError: A value that cannot be, or a field given twice.
        """
        from emcache.errors import UsageError
        from emcache.training.protocol import LINEAR_LEARNING_RATE, find_protocol, parse_fields

        given = {
            "max_epochs": self.epochs,
            "patience": self.patience,
            "learning_rate": self.learning_rate,
            "batch": self.batch,
            "head": self.head,
            "val_split": self.val_split,
            "normalise": self.normalise,
            "tokens": self.tokens,
            "layers": self.layers,
            "align": self.align,
            "penalty": self.penalty,
            "align_on": self.align_on,
            "train_subset": self.train_subset,
            **further,
        }
        set_fields = parse_fields(self.fields or [])
        twice = [name for name in set_fields if given.get(name) is not None]
        if twice:
            raise UsageError(
                f"{twice[0]} is given by --set and by an option of its own; expected it once.",
                subject=twice[0],
            )
        given |= set_fields
        if head_alone and given["head"] == "linear" and given["learning_rate"] is None:
            # The study's is for its own head, and far too low for this one.
            given["learning_rate"] = LINEAR_LEARNING_RATE
        return find_protocol(self.protocol).with_changes(given)


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Where and how to compute; the scores differ by rounding alone."""

    PANEL: ClassVar[str] = "Computing"

    device: DeviceOption = "auto"
    precision: PrecisionOption = "auto"
    resident: Annotated[
        Literal["auto", "device", "ram", "disk"],
        typer.Option(help="Where examples wait between epochs."),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """LoRA adapters."""

    PANEL: ClassVar[str] = "Adapters"

    rank: Annotated[int | None, typer.Option(min=1, help="Rank of the adapters. (default: 16)")] = (
        None
    )
    alpha: Annotated[
        float | None, typer.Option(help="Updates are scaled by alpha / rank. (default: 32)")
    ] = None
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Layers of every block to adapt. (default: attn.qkv,attn.proj)",
        ),
    ] = None
    last_blocks: Annotated[
        int | None, typer.Option(min=1, help="Adapt the last few blocks alone. (default: all)")
    ] = None


@dataclass(frozen=True, kw_only=True)
class FineTuningOptions:
    """All weights of the backbone."""

    PANEL: ClassVar[str] = "Fine-tuning"

    backbone_learning_rate: Annotated[
        float | None, typer.Option(help="Of the backbone's own weights. (default: 1e-5)")
    ] = None


@with_groups
def train_head(
    datasets: DatasetsArgument,
    tokens: HeadTokensOptions,
    training: TrainingOptions,
    computing: ComputeOptions,
    output: OutputOptions,
) -> None:
    """Train a head on cached tokens, once for each seed, and score it on the test slices."""
    protocol = training.changed_protocol({"pixel_size_nm": tokens.pixel_size}, head_alone=True)
    request = _request(datasets, tokens.request(), protocol, training, computing, output)
    deliver_training(request, output, training.train_slices)


@with_groups
def train_lora(
    datasets: DatasetsArgument,
    backbone: BackboneOptions,
    adapters: AdapterOptions,
    training: TrainingOptions,
    computing: BackboneComputeOptions,
    output: OutputOptions,
) -> None:
    """Train LoRA adapters and a head, once for each seed, and score them on the test slices.

    The backbone runs at every step: nothing is read from the cache.
    """
    targets = adapters.targets
    protocol = training.changed_protocol(
        {
            "pixel_size_nm": backbone.pixel_size,
            "lora_rank": adapters.rank,
            "lora_alpha": adapters.alpha,
            "lora_last_blocks": adapters.last_blocks,
            "lora_targets": targets and "+".join(t.strip() for t in targets.split(",")),
        }
    )
    request = _request(datasets, backbone.request(), protocol, training, computing, output)
    _train_backbone("lora", request, training, computing, output)


@with_groups
def train_full(
    datasets: DatasetsArgument,
    backbone: BackboneOptions,
    fine_tuning: FineTuningOptions,
    training: TrainingOptions,
    computing: BackboneComputeOptions,
    output: OutputOptions,
) -> None:
    """Train the whole backbone and a head, once for each seed, and score them on the test slices.

    The backbone runs at every step: nothing is read from the cache.
    """
    protocol = training.changed_protocol(
        {
            "pixel_size_nm": backbone.pixel_size,
            "backbone_learning_rate": fine_tuning.backbone_learning_rate,
        }
    )
    request = _request(datasets, backbone.request(), protocol, training, computing, output)
    _train_backbone("full", request, training, computing, output)


def _request(
    datasets: Sequence[str],
    features: FeatureRequest,
    protocol: Protocol,
    training: TrainingOptions,
    computing: ComputeOptions,
    output: OutputOptions,
) -> TrainingRequest:
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


def _train_backbone(
    regime: str,
    request: TrainingRequest,
    training: TrainingOptions,
    computing: BackboneComputeOptions,
    output: OutputOptions,
) -> None:
    accumulate, checkpoint = computing.accumulate, computing.checkpoint
    request = replace(request, regime=regime, accumulate=accumulate, checkpoint=checkpoint)
    deliver_training(request, output, training.train_slices)
