"""Names of backbones, and what is known of each without building it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from emcache.errors import BackboneError


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """A backbone by its name."""

    name: str
    """Name on the command line and in the warehouse."""
    architecture: str
    """timm's name of the architecture, or ``tiny``."""
    patch: int
    """Side of a patch in pixels."""
    dim: int
    """Channels of a token."""
    hub: str | None
    """Hub repository of the pretrained weights, or None where there are none."""


def _dinov2(size: str, architecture: str, dim: int) -> BackboneSpec:
    return BackboneSpec(f"dinov2-{size}", architecture, 14, dim, f"timm/{architecture}.lvd142m")


TINY = BackboneSpec("tiny", "tiny", 14, 64, None)
"""Two small blocks for trying things out and for tests; it exists with random weights only."""

BACKBONES: Mapping[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _dinov2("small", "vit_small_patch14_dinov2", 384),
        _dinov2("base", "vit_base_patch14_dinov2", 768),
        _dinov2("large", "vit_large_patch14_dinov2", 1024),
        _dinov2("giant", "vit_giant_patch14_dinov2", 1536),
        TINY,
    )
}
"""Every backbone by its name."""


def find_backbone(name: str) -> BackboneSpec:
    """The backbone of that name.

    Raises:
        BackboneError: There is none; the closest name is offered.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    close = difflib.get_close_matches(name, BACKBONES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise BackboneError(
        f"there is no backbone {name!r}; {hint}known: {', '.join(BACKBONES)}.", subject=name
    )
