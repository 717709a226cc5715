"""How many parameters the study trains, counted without weights (its Table 7).

Percentages are trainable parameters over backbone and head together; adapters do not count below
the line, as in the table. An OpenCLIP backbone is its vision tower with the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emcache.models.backbones.build import empty_backbone
from emcache.models.backbones.registry import BackboneSpec
from emcache.models.heads import DeconvHead, count_parameters

LORA_RANK = 16
"""Rank of the study's adapters."""

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters of one backbone with the study's head and adapters."""

    backbone: str
    timm_or_open_clip: str
    """``timm:NAME`` or ``open_clip:NAME``."""
    embed_dim: int
    patch: int
    backbone_parameters: int
    head_parameters: int
    adapter_parameters: int
    """LoRA on the attention's qkv and output projection of every block."""

    def as_row(self) -> dict[str, str | int | float]:
        """The row of Table 7: millions to three decimals, percentages to one."""
        whole = self.backbone_parameters + self.head_parameters
        with_lora = self.head_parameters + self.adapter_parameters
        return {
            "backbone": self.backbone,
            "timm_or_open_clip": self.timm_or_open_clip,
            "embed_dim": self.embed_dim,
            "patch": self.patch,
            "head_only": round(self.head_parameters / _MILLION, 3),
            "head_only_pct": round(100 * self.head_parameters / whole, 1),
            "lora_plus_head": round(with_lora / _MILLION, 3),
            "lora_plus_head_pct": round(100 * with_lora / whole, 1),
        }


def count_study_parameters(specs: Sequence[BackboneSpec]) -> list[ParameterCount]:
    """Count every backbone; shapes alone are made, so giants cost no memory."""
    counts = []
    for spec in specs:
        backbone = empty_backbone(spec)
        head = DeconvHead(spec.dim)
        # Rank r on a map from a to b adds r (a + b): D to 3 D for qkv, D to D for the output.
        per_block = LORA_RANK * (spec.dim + 3 * spec.dim) + LORA_RANK * 2 * spec.dim
        counts.append(
            ParameterCount(
                spec.name,
                f"{spec.family}:{spec.architecture}",
                spec.dim,
                spec.patch,
                count_parameters(backbone),
                count_parameters(head),
                per_block * sum(1 for _ in backbone.blocks.children()),
            )
        )
    return counts
