"""A backbone in two parts: blocks whose output is cached, and blocks that go on from it."""

from __future__ import annotations

import torch

from emcache.errors import BackboneError
from emcache.models.backbones.base import BackboneModule
from emcache.models.layer_names import raw_layer

_TOLERANCE = 1e-4


def check_split(backbone: BackboneModule, after: int) -> None:
    """Refuse a backbone whose later blocks need more than the output of an earlier one.

    Args:
        backbone: In float32.
        after: Number of the block, from 1, behind which it is split.

    Raises:
        BackboneError: The tokens of a small picture of noise differ.
    """
    device = next(backbone.parameters()).device
    noise = torch.Generator().manual_seed(0)
    images = torch.randn((1, 3, 2 * backbone.patch, 3 * backbone.patch), generator=noise).to(device)
    with torch.no_grad():
        last, raw = backbone.layers(images, ["last", raw_layer(after)])
        assert raw.prefix is not None  # noqa: S101 - of a raw layer
        patches = raw.tokens.flatten(2).transpose(1, 2)
        again = backbone.go_on(torch.cat([raw.prefix, patches], dim=1), after, (2, 3))
    largest = last.tokens.abs().max().clamp(min=1)
    if not (again.tokens - last.tokens).abs().max() <= _TOLERANCE * largest:
        raise BackboneError(
            f"the blocks of {backbone.spec.name} behind block {after} need more than its output, "
            f"so it cannot come from the cache; train with --on-the-fly.",
            subject=backbone.spec.name,
        )
