"""Names of backbones, and what is known of each without building it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from emcache.errors import BackboneError, suggest

Family = Literal["timm", "open_clip", "tiny"]


@dataclass(frozen=True, slots=True)
class HubFile:
    """Where pretrained weights are published."""

    repository: str
    """Repository of the model hub."""
    name: str = "model.safetensors"
    """File in it."""


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """A backbone by its name."""

    name: str
    """Name on the command line and in the warehouse."""
    family: Family
    """Which library builds it."""
    architecture: str
    """The library's name of it."""
    patch: int
    """Side of a patch in pixels."""
    dim: int
    """Channels of a token."""
    hub: HubFile | None
    """Pretrained weights, or None where there are none."""


def _timm(name: str, architecture: str, patch: int, dim: int, tag: str) -> BackboneSpec:
    return BackboneSpec(
        name, "timm", architecture, patch, dim, HubFile(f"timm/{architecture}.{tag}")
    )


def _open_clip(name: str, architecture: str, dim: int, repository: str) -> BackboneSpec:
    hub = HubFile(repository, "open_clip_model.safetensors")
    return BackboneSpec(name, "open_clip", architecture, 14, dim, hub)


TINY = BackboneSpec("tiny", "tiny", "tiny", 14, 64, None)
"""Two small blocks for trying things out and for tests; it exists with random weights only."""

STUDY_BACKBONES: tuple[BackboneSpec, ...] = (
    _timm("dinov2-small", "vit_small_patch14_dinov2", 14, 384, "lvd142m"),
    _timm("dinov2-base", "vit_base_patch14_dinov2", 14, 768, "lvd142m"),
    _timm("dinov2-large", "vit_large_patch14_dinov2", 14, 1024, "lvd142m"),
    _timm("dinov2-giant", "vit_giant_patch14_dinov2", 14, 1536, "lvd142m"),
    _timm("dinov3-small", "vit_small_patch16_dinov3", 16, 384, "lvd1689m"),
    _timm("dinov3-base", "vit_base_patch16_dinov3", 16, 768, "lvd1689m"),
    _timm("dinov3-large", "vit_large_patch16_dinov3", 16, 1024, "lvd1689m"),
    _open_clip("openclip-vit-l-14", "ViT-L-14", 1024, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
    _open_clip("openclip-vit-h-14", "ViT-H-14", 1280, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
)
"""The study's nine backbones (arXiv 2602.08505), in the order of its Table 7."""

BACKBONES: Mapping[str, BackboneSpec] = {spec.name: spec for spec in (*STUDY_BACKBONES, TINY)}
"""Every backbone with a name of its own."""


def find_backbone(name: str) -> BackboneSpec:
    """The backbone of that name, or any vision transformer as ``timm:NAME`` or ``open_clip:NAME``.

    Raises:
        BackboneError: There is none; the closest name is offered.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    library, colon, architecture = name.partition(":")
    # Each library takes seconds to import, and most commands need neither.
    if colon and library == "timm":
        from emcache.models.backbones import timm_vit

        return timm_vit.describe(architecture)
    if colon and library == "open_clip":
        from emcache.models.backbones import open_clip_vit

        return open_clip_vit.describe(architecture)
    hint = suggest(name, BACKBONES)
    raise BackboneError(
        f"there is no backbone {name!r}; {hint}known: {', '.join(BACKBONES)}, and any vision "
        f"transformer as timm:NAME or open_clip:NAME.",
        subject=name,
    )
