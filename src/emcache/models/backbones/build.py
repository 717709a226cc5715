"""Building a backbone from its spec, whichever library it comes from."""

from __future__ import annotations

import torch

from emcache.models.backbones.base import BackboneModule
from emcache.models.backbones.registry import BackboneSpec


def build_backbone(spec: BackboneSpec) -> BackboneModule:
    """A backbone with whatever weights its library starts with."""
    # Each library takes seconds to import; only the one that is needed is.
    if spec.family == "open_clip":
        from emcache.models.backbones.open_clip_vit import OpenClipBackbone

        return OpenClipBackbone(spec)
    from emcache.models.backbones.timm_vit import TimmBackbone

    return TimmBackbone(spec)


def random_backbone(spec: BackboneSpec, seed: int) -> BackboneModule:
    """An untrained backbone, the same for the same seed and versions of the libraries."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(spec)


def empty_backbone(spec: BackboneSpec) -> BackboneModule:
    """A backbone without any memory for its weights: shapes and counts only."""
    with torch.device("meta"):
        return build_backbone(spec)
