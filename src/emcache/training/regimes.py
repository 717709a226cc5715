"""Regimes: what a training trains. A new one is a class here and a line in ``REGIMES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from typing_extensions import override

from emcache.errors import UsageError
from emcache.models.backbones.registry import find_backbone
from emcache.models.device import pick_layout
from emcache.models.heads import Head, Segmenter, build_head
from emcache.models.loading import load_backbone
from emcache.progress import Quiet, Reporter
from emcache.storage.workspace import Workspace
from emcache.training.inputs import Inputs, InputsRequest, plan_cached_tokens, plan_pixels
from emcache.training.plan import Model, Regime, TrainingPlan


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
            head = _head(plan, seed)
            return Model(head, head)

        return build

    @override
    def facts(self, plan: TrainingPlan) -> Mapping[str, Any]:
        del plan
        return {}


class Lora(Regime):
    """LoRA adapters in the backbone, and a head."""

    record_kind = "train-lora"
    runs_backbone = True

    @override
    def plan(self, workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
        return plan_pixels(workspace, request, reporter)

    @override
    def builder(self, plan: TrainingPlan, reporter: Reporter) -> Callable[[int], Model]:
        # PEFT takes seconds to import; who trains heads alone, or plans a study, need not wait.
        from emcache.models.lora import attach_adapter

        weights = plan.inputs.weights
        assert weights is not None  # noqa: S101 - of a backbone that runs at every step
        spec = find_backbone(plan.inputs.description["backbone"])
        request, protocol = plan.request, plan.protocol
        reporters = [reporter]

        def build(seed: int) -> Model:
            first = reporters.pop() if reporters else Quiet()
            backbone = load_backbone(spec, weights, plan.device, first)
            targets = protocol.lora_targets.split("+")
            rank, alpha = protocol.lora_rank, protocol.lora_alpha
            last = protocol.lora_last_blocks
            adapter = attach_adapter(backbone, rank, alpha, targets, seed, last)
            if request.checkpoint:
                backbone.checkpoint_activations()
            head = _head(plan, seed)
            return Model(Segmenter(backbone, head, request.accumulate), head, adapter)

        return build

    @override
    def facts(self, plan: TrainingPlan) -> Mapping[str, Any]:
        return {"accumulate": plan.request.accumulate, "checkpoint": plan.request.checkpoint}


REGIMES: Mapping[str, Regime] = {"frozen": Frozen(), "lora": Lora()}
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


def _head(plan: TrainingPlan, seed: int) -> Head:
    classes, dim = len(plan.sources.class_names), plan.inputs.description["dim"]
    domains = len(plan.domains.names)
    return build_head(plan.protocol.head, dim, seed, classes, pick_layout(plan.device), domains)
