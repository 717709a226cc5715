"""The commands that train: ``emcache train-head``, ``train-lora`` and ``train-full``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from emcache_cli.delivery import OutputOptions, deliver_training
from emcache_cli.groups import with_groups
from emcache_cli.options import BackboneOptions, CachedTokensOptions
from emcache_cli.training_options import (
    BackboneComputeOptions,
    ComputeOptions,
    DatasetsArgument,
    TrainingOptions,
    training_request,
)

if TYPE_CHECKING:
    from emcache.cache.find import FeatureRequest
    from emcache.training.plan import TrainingRequest
    from emcache.training.protocol import Protocol


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class HeadTokensOptions(CachedTokensOptions):
    """Tokens that a head is trained on."""

    feature_set: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One feature set by its folder's name in cache/."),
    ] = None

    def request(self) -> FeatureRequest:
        """Which features are meant."""
        return replace(super().request(), feature_set=self.feature_set)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class HeadOptions(TrainingOptions):
    """How to train a head, with or without its backbone."""

    protocol: Annotated[str, typer.Option(metavar="NAME", help="Where the settings start.")] = (
        "paper"
    )
    head: Annotated[
        Literal["deconv", "deconv-skip", "linear"] | None,
        typer.Option(
            help="The study's head, or batch norm and one 1x1 convolution. (default: deconv)"
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

    def head_protocol(self, further: dict[str, Any], *, head_alone: bool = False) -> Protocol:
        """The protocol with every field that was given.

        Args:
            further: Fields that options of other groups give; None leaves one as it is.
            head_alone: Whether nothing but a head is trained.

        Raises:
            UsageError: A value that cannot be, or a field given twice.
        """
        from emcache.training.protocol import LINEAR_LEARNING_RATE, parse_fields

        given = {
            "head": self.head,
            "tokens": self.tokens,
            "layers": self.layers,
            "align": self.align,
            "penalty": self.penalty,
            "align_on": self.align_on,
            **further,
        }
        set_fields = parse_fields(self.fields or [])
        linear = "linear" in (self.head, set_fields.get("head"))
        rates = (self.learning_rate, set_fields.get("learning_rate"))
        if head_alone and linear and rates == (None, None):
            # The study's is for its own head, and far too low for this one.
            given["learning_rate"] = LINEAR_LEARNING_RATE
        return self.changed_protocol(self.protocol, given)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
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
        int | None,
        typer.Option(
            min=1,
            help="Adapt the last few blocks alone; what the others give is cached once. "
            "(default: all)",
        ),
    ] = None
    on_the_fly: Annotated[
        bool,
        typer.Option(
            "--on-the-fly", help="Run all blocks at every step, and keep nothing in the cache."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
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
    training: HeadOptions,
    computing: ComputeOptions,
    output: OutputOptions,
) -> None:
    """Train a head on cached tokens, once for each seed, and score it on the test slices."""
    protocol = training.head_protocol({"pixel_size_nm": tokens.pixel_size}, head_alone=True)
    request = training_request(datasets, tokens.request(), protocol, training, computing, output)
    deliver_training(request, output, training.train_slices)


@with_groups
def train_lora(
    datasets: DatasetsArgument,
    backbone: BackboneOptions,
    adapters: AdapterOptions,
    training: HeadOptions,
    computing: BackboneComputeOptions,
    output: OutputOptions,
) -> None:
    """Train LoRA adapters and a head, once for each seed, and score them on the test slices.

    The backbone runs at every step. With --last-blocks K only its last K blocks do: what goes into
    them is computed once and read from the cache.
    """
    targets = adapters.targets
    protocol = training.head_protocol(
        {
            "pixel_size_nm": backbone.pixel_size,
            "lora_rank": adapters.rank,
            "lora_alpha": adapters.alpha,
            "lora_last_blocks": adapters.last_blocks,
            "lora_targets": targets and "+".join(t.strip() for t in targets.split(",")),
        }
    )
    request = training_request(datasets, backbone.request(), protocol, training, computing, output)
    request = replace(request, on_the_fly=adapters.on_the_fly)
    _train_backbone("lora", request, training, computing, output)


@with_groups
def train_full(
    datasets: DatasetsArgument,
    backbone: BackboneOptions,
    fine_tuning: FineTuningOptions,
    training: HeadOptions,
    computing: BackboneComputeOptions,
    output: OutputOptions,
) -> None:
    """Train the whole backbone and a head, once for each seed, and score them on the test slices.

    The backbone runs at every step: nothing is read from the cache.
    """
    protocol = training.head_protocol(
        {
            "pixel_size_nm": backbone.pixel_size,
            "backbone_learning_rate": fine_tuning.backbone_learning_rate,
        }
    )
    request = training_request(datasets, backbone.request(), protocol, training, computing, output)
    _train_backbone("full", request, training, computing, output)


def _train_backbone(
    regime: str,
    request: TrainingRequest,
    training: HeadOptions,
    computing: BackboneComputeOptions,
    output: OutputOptions,
) -> None:
    accumulate, checkpoint = computing.accumulate, computing.checkpoint
    request = replace(request, regime=regime, accumulate=accumulate, checkpoint=checkpoint)
    deliver_training(request, output, training.train_slices)
