"""Which of a model's values a training changes, and by which rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from emcache.models.heads import Segmenter


def parameter_groups(
    model: nn.Module, trained: Sequence[nn.Parameter], backbone_rate: float | None
) -> list[dict[str, Any]]:
    """The trained parameters in their order, those of the backbone with a rate of their own."""
    if backbone_rate is None:
        return [{"params": trained}]
    assert isinstance(model, Segmenter)  # noqa: S101 - heads alone have no backbone
    own = {id(parameter) for parameter in model.backbone.parameters()}
    return [
        {"params": [p for p in trained if id(p) in own], "lr": backbone_rate},
        {"params": [p for p in trained if id(p) not in own]},
    ]


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what training changes: trained parameters, and buffers such as running means."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if name not in frozen
    }
