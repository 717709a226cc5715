"""Regimes: what a training trains. A new one is a class here and a line in ``REGIMES``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from typing_extensions import override

from emcache.errors import UsageError
from emcache.models.backbones.base import BackboneModule, count_blocks
from emcache.models.backbones.registry import find_backbone
from emcache.models.heads import FITTED, Head, Segmenter, takes_images
from emcache.models.loading import load_backbone
from emcache.models.split import check_split
from emcache.models.tuned import unfreeze
from emcache.progress import Quiet, Reporter
from emcache.storage.workspace import Workspace
from emcache.training.inputs import (
    Inputs,
    InputsRequest,
    plan_block_outputs,
    plan_cached_tokens,
    plan_pixels,
)
from emcache.training.plan import (
    FITTING_FIELDS,
    SLICE_FIELDS,
    HeadShape,
    Model,
    Regime,
    TrainingPlan,
    Tuned,
)
from emcache.training.protocol import Protocol
from emcache.training.slice_inputs import SliceNetwork, plan_slices


class Frozen(Regime):
    """A head on cached tokens: no image is decoded and no backbone is built."""

    record_kind = "train-head"
    runs_backbone = False

    @override
    def plan(self, workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
        return plan_cached_tokens(workspace, request, reporter)

    @override
    def builder(self, plan: TrainingPlan, reporter: Reporter) -> Callable[[int], Model]:
        del reporter

        def build(seed: int) -> Model:
            head = self.empty_head(plan.head_shape(seed))
            return Model(head, head)

        return build


class FewLabel(Frozen):
    """A head that is fitted to the cached tokens of a few labelled points."""

    record_kind = "few-label"
    fits = True
    heads = FITTED
    protocol = "few-label"
    own_fields = (*FITTING_FIELDS, "threshold")

    @override
    def empty_head(self, shape: HeadShape) -> Head:
        # scikit-learn and scikit-image take a second to import.
        from emcache.models.fitted import build_fitted

        protocol = shape.protocol
        return build_fitted(
            protocol.head,
            shape.dim,
            shape.seed,
            protocol.threshold,
            protocol.neighbours,
            protocol.trees,
        )


class _Tuning(Regime):
    """A head, and something of the backbone, which runs at every step."""

    runs_backbone = True

    @abstractmethod
    def tune(self, backbone: BackboneModule, protocol: Protocol, seed: int) -> Tuned:
        """Make what is trained of a frozen backbone, which is changed in place."""

    @abstractmethod
    def backbone_rate(self, protocol: Protocol) -> float | None:
        """Learning rate of the backbone's parameters; None for that of the head."""

    @override
    def plan(self, workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
        return plan_pixels(workspace, request, reporter)

    @override
    def builder(self, plan: TrainingPlan, reporter: Reporter) -> Callable[[int], Model]:
        weights = plan.inputs.weights
        assert weights is not None  # noqa: S101 - of a backbone that runs at every step
        spec = find_backbone(plan.inputs.description["backbone"])
        request, protocol = plan.request, plan.protocol
        reporters = [reporter]

        def build(seed: int) -> Model:
            first = reporters.pop() if reporters else Quiet()
            backbone = load_backbone(spec, weights, plan.device, first)
            if plan.inputs.after:
                check_split(backbone, plan.inputs.after)
            tuned = self.tune(backbone, protocol, seed)
            if request.checkpoint:
                backbone.checkpoint_activations()
            head = self.empty_head(plan.head_shape(seed))
            segmenter = Segmenter(backbone, head, request.accumulate, plan.inputs.after)
            return Model(segmenter, head, tuned, self.backbone_rate(protocol))

        return build

    @override
    def facts(self, plan: TrainingPlan) -> Mapping[str, Any]:
        return {
            "accumulate": plan.request.accumulate,
            "checkpoint": plan.request.checkpoint,
            "cached_blocks": plan.inputs.after,
        }


class Lora(_Tuning):
    """LoRA adapters in the backbone, and a head."""

    record_kind = "train-lora"

    @override
    def plan(self, workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
        adapted, backbone = request.protocol.lora_last_blocks, request.features.backbone
        # A head that takes the slice too needs its pixels, and then the rest of them.
        if (
            request.cached_blocks
            and adapted
            and backbone
            and not takes_images(request.protocol.head)
        ):
            after = count_blocks(find_backbone(backbone)) - adapted
            if after > 0:
                return plan_block_outputs(workspace, request, after, reporter)
        return super().plan(workspace, request, reporter)

    @override
    def tune(self, backbone: BackboneModule, protocol: Protocol, seed: int) -> Tuned:
        # PEFT takes seconds to import; who trains heads alone, or plans a study, need not wait.
        from emcache.models.lora import attach_adapter

        return attach_adapter(
            backbone,
            protocol.lora_rank,
            protocol.lora_alpha,
            protocol.lora_targets.split("+"),
            seed,
            protocol.lora_last_blocks,
        )

    @override
    def backbone_rate(self, protocol: Protocol) -> float | None:
        del protocol
        return None


class Full(_Tuning):
    """All weights of the backbone, and a head."""

    record_kind = "train-full"

    @override
    def tune(self, backbone: BackboneModule, protocol: Protocol, seed: int) -> Tuned:
        del protocol, seed
        return unfreeze(backbone)

    @override
    def backbone_rate(self, protocol: Protocol) -> float | None:
        return protocol.backbone_learning_rate


class Supervised(Regime):
    """A U-Net that is trained on slices from scratch."""

    record_kind = "train-unet"
    runs_backbone = False
    has_backbone = False
    heads = ("unet",)
    protocol = "unet"
    own_fields = SLICE_FIELDS

    @override
    def plan(self, workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
        del workspace, reporter
        return plan_slices(request)

    @override
    def builder(self, plan: TrainingPlan, reporter: Reporter) -> Callable[[int], Model]:
        del reporter
        # MONAI's transforms take seconds to import.
        from emcache.training.augmentation import Augmentation

        protocol, augmentation = plan.protocol, None
        if protocol.augmentation != "none":
            changes = protocol.augmentation == "full"
            augmentation = Augmentation(protocol.crop, changes=changes)

        def build(seed: int) -> Model:
            network = self.empty_head(plan.head_shape(seed))
            return Model(network, network, augmentation=augmentation)

        return build

    @override
    def empty_head(self, shape: HeadShape) -> Head:
        # MONAI's networks take seconds to import.
        from emcache.models.unet import build_unet

        protocol = shape.protocol
        return build_unet(shape.classes, shape.seed, protocol.crop, tta=protocol.tta)


class ZeroShot(Regime):
    """CLIPSeg, which is told in words what to look for."""

    record_kind = "zero-shot"
    runs_backbone = False
    has_backbone = False
    learns = False
    heads = ("clipseg",)
    protocol = "zero-shot"
    own_fields = ("prompt", "threshold")

    @override
    def plan(self, workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
        from emcache.models.clipseg import NAME, find_clipseg

        del workspace, reporter
        files = find_clipseg(request.features.weights)
        return plan_slices(request, SliceNetwork(NAME, files.label, files.sha256, in_colour=True))

    @override
    def builder(self, plan: TrainingPlan, reporter: Reporter) -> Callable[[int], Model]:
        # transformers takes seconds to import.
        from emcache.models.clipseg import clipseg_folder, load_clipseg

        del reporter
        protocol = plan.protocol
        folder = clipseg_folder(plan.request.features.weights)
        head = load_clipseg(folder, protocol.prompt, protocol.threshold)
        return lambda _: Model(head, head)

    @override
    def facts(self, plan: TrainingPlan) -> Mapping[str, Any]:
        from emcache.models.clipseg import clipseg_source

        return {"weights_source": clipseg_source(plan.request.features.weights)}


REGIMES: Mapping[str, Regime] = {
    "frozen": Frozen(),
    "lora": Lora(),
    "full": Full(),
    "few-label": FewLabel(),
    "supervised": Supervised(),
    "zero-shot": ZeroShot(),
}
"""Every regime by its name."""


def find_regime(name: str) -> Regime:
    """The regime of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in REGIMES:
        raise UsageError(
            f"there is no regime {name!r:.100}; known: {', '.join(REGIMES)}.", subject=name
        )
    return REGIMES[name]
