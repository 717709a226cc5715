"""What a training is asked for, and its plan: data, device, arithmetic and their fingerprint."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import nn

from emcache.cache.find import FeatureRequest
from emcache.errors import UsageError
from emcache.models.arithmetic import Precision
from emcache.models.heads import TRAINED, Head, build_head, count_parameters
from emcache.models.layouts import pick_layout
from emcache.progress import Reporter
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Draft
from emcache.storage.workspace import Workspace
from emcache.training.batches import Residency
from emcache.training.domains import Domains
from emcache.training.inputs import Inputs, InputsRequest
from emcache.training.protocol import Protocol
from emcache.training.sampling import Sampling, Sources, Split, split_of

if TYPE_CHECKING:
    # Its module imports MONAI's transforms, which take seconds.
    from emcache.training.augmentation import Augmentation

HEAD_FILE = "head.safetensors"
"""Where a record keeps its head."""


@runtime_checkable
class Tuned(typing.Protocol):
    """What is trained of a backbone: an adapter, whose module imports PEFT, or all its weights."""

    folder_name: ClassVar[str]
    """Where a record keeps it."""

    @property
    def parameters(self) -> int:
        """Number of trainable values."""

    def facts(self) -> Mapping[str, Any]:
        """What a record says of it."""

    def save(self, folder: Path) -> None:
        """Write it into a new folder."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is trained."""

    module: nn.Module
    """From a batch's inputs and a size to logits."""
    head: Head
    """The part of it that is the head."""
    tuned: Tuned | None = None
    """What is trained of the backbone, in regimes that do."""
    backbone_rate: float | None = None
    """Learning rate of the backbone's parameters; None for that of the head."""
    augmentation: Augmentation | None = None
    """Of the slices that it is trained on."""

    def save(self, draft: Draft) -> None:
        """Write into a record what was trained."""
        if self.head.is_saved:
            tensors = self.head.state_dict().items()
            state = {name: t.detach().cpu().contiguous() for name, t in tensors}
            save_file(state, draft.path(HEAD_FILE))
        if self.tuned is not None:
            self.tuned.save(draft.path(self.tuned.folder_name))

    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        head = count_parameters(self.head)
        facts: dict[str, Any] = {"head_parameters": head, "trainable_parameters": head}
        if self.tuned is not None:
            facts |= self.tuned.facts()
            facts["trainable_parameters"] += self.tuned.parameters
        return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """Everything that the user may choose about a training."""

    datasets: Sequence[str]
    """What to train on; several are one training."""
    regime: str = "frozen"
    """``frozen``, a head on cached tokens; ``lora``, adapters in the backbone with it; ``full``,
    all of the backbone; ``few-label``, a head that is fitted; ``supervised``, a U-Net; or
    ``zero-shot``, a text prompt."""
    features: FeatureRequest = FeatureRequest()  # noqa: RUF009 - frozen
    """Backbone, weights and sizes. Where tokens come from the cache, None means what it holds."""
    protocol: Protocol = Protocol()  # noqa: RUF009 - frozen
    seeds: Sequence[int] = (0,)
    """One run for each."""
    sampling: Sampling = Sampling.NATURAL
    resident: Residency = Residency.AUTO
    device: str = "auto"
    precision: str = "auto"
    accumulate: int = 1
    """Number of parts in which a backbone takes a step's slices, to need less memory."""
    checkpoint: bool = False
    """Keep only each block's input, and compute its activations again for the gradient."""
    on_the_fly: bool = False
    """Run all blocks of a backbone at every step, also those that no adapter is on."""
    save_predictions: bool = False
    accept_audit: bool = False
    """Train though the audit of a dataset failed."""
    annotations: Path | None = None
    """Labelled points of the user's, for a head that is fitted; None to draw them from masks."""

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise UsageError(
                f"--accumulate {self.accumulate} is not a number of parts; expected 1 or more.",
                subject=self.accumulate,
            )


FITTING_FIELDS = ("clicks", "scribbles", "annotations", "from_slices", "neighbours", "trees")
"""What a protocol says of a head that is fitted."""
SLICE_FIELDS = ("augmentation", "crop", "tta")
"""What it says of a network that is trained on slices."""
OWN_FIELDS = (*FITTING_FIELDS, "threshold", *SLICE_FIELDS, "prompt")
"""Fields of a protocol that only some regimes read."""

_PLAIN = Protocol()


class HeadShape(NamedTuple):
    """Everything that decides the weights of an untrained head."""

    protocol: Protocol
    dim: int
    """Channels of a token."""
    classes: int
    """Outputs."""
    seed: int
    layout: torch.memory_format
    """How its weights lie in memory."""
    domains: int
    """Of how many datasets its batch norms keep statistics; 0 for plain ones."""


class Regime(ABC):
    """What is trained, and from what."""

    record_kind: ClassVar[str]
    """Kind of the records."""
    runs_backbone: ClassVar[bool]
    """Whether the backbone runs at every step; otherwise its tokens come from the cache."""

    has_backbone: ClassVar[bool] = True
    """Whether there is one; otherwise a network of its own is trained on slices."""

    fits: ClassVar[bool] = False
    """Whether a head is fitted to a few labelled points, and not trained."""

    learns: ClassVar[bool] = True
    """Whether it learns anything from the slices; otherwise the test slices are all it sees."""

    heads: ClassVar[Sequence[str]] = TRAINED
    """Heads that it can train or fit."""

    protocol: ClassVar[str] = "paper"
    """Name of the protocol where none is named."""

    own_fields: ClassVar[Sequence[str]] = ()
    """Of the fields of a protocol that few regimes read (:data:`OWN_FIELDS`), those of this one."""

    def check_fields(self, protocol: Protocol) -> None:
        """Refuse a field that would stand in the protocol's name and do nothing.

        Raises:
            UsageError: It is one of other regimes.
        """
        for name in OWN_FIELDS:
            if name not in self.own_fields and getattr(protocol, name) != getattr(_PLAIN, name):
                raise UsageError(
                    f"{name} is {getattr(protocol, name)}, which nothing in this regime reads; "
                    f"leave it out (--set in a command, [grid.protocol] in a study).",
                    subject=name,
                )

    def check_head(self, head: str) -> None:
        """Refuse a head that the regime cannot make.

        Raises:
            UsageError: It is one of another regime.
        """
        if head not in self.heads:
            raise UsageError(
                f"the head {head} is not one of this regime, which has {', '.join(self.heads)}; "
                f"expected one of these: prototype, knn, forest and others are for emcache "
                f"few-label, unet is for emcache train-unet, and clipseg for emcache zero-shot.",
                subject=head,
            )

    @abstractmethod
    def plan(self, workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
        """Find out what is read of the sources; nothing is made.

        Raises:
            EmcacheError: Of the dataset, the backbone, its weights or the device.
        """

    @abstractmethod
    def builder(self, plan: TrainingPlan, reporter: Reporter) -> Callable[[int], Model]:
        """A function from a seed to an untrained model.

        Args:
            plan: Of the training.
            reporter: Receives what the weights' file holds beside the backbone, once.
        """

    def empty_head(self, shape: HeadShape) -> Head:
        """An untrained head: a training starts from it, and weights are loaded into it."""
        protocol = shape.protocol
        return build_head(
            protocol.head,
            shape.dim,
            shape.seed,
            shape.classes,
            shape.layout,
            shape.domains,
        )

    def facts(self, plan: TrainingPlan) -> Mapping[str, Any]:
        """What records say of the training beside what those of every regime say."""
        del plan
        return {}


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A training that is known in every detail; nothing is extracted or trained yet."""

    request: TrainingRequest
    regime: Regime
    sources: Sources
    inputs: Inputs
    protocol: Protocol
    """The request's, with the physical scale of the inputs."""
    device: torch.device
    precision: Precision

    @property
    def domains(self) -> Domains:
        """Whose statistics the head's batch norms keep."""
        return Domains.of(self.sources, self.protocol.align)

    def head_shape(self, seed: int) -> HeadShape:
        """Of the head of a seed's run."""
        classes, dim = len(self.sources.class_names), self.inputs.description["dim"]
        layout, domains = pick_layout(self.device, self.precision), len(self.domains.names)
        return HeadShape(self.protocol, dim, classes, seed, layout, domains)

    def split(self, seed: int) -> Split:
        """What the run of a seed learns from.

        Raises:
            UsageError: As :func:`emcache.training.sampling.split_of`.
            DatasetError: The same.
        """
        return split_of(self.sources, self.protocol, seed, validates=not self.regime.fits)

    def fingerprint(self, seed: int | None) -> str:
        """Key over everything that could change the result but the machine.

        Args:
            seed: Of the run; None for what the runs of all seeds share.
        """
        return json_sha256(
            {
                "regime": self.request.regime,
                "features": self.inputs.fingerprints,
                "labels": self.inputs.label_keys,
                # Names and splits decide which slices train, and what their scores are called.
                "slices": [
                    [source.dataset.first_name, *((item.id, item.split) for item in source.slices)]
                    for source in self.sources.items
                ],
                "protocol": self.protocol.as_dict(),
                "sampling": self.request.sampling,
                "precision": self.precision,
                "seed": seed,
            }
        )
