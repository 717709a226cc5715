"""A backbone with the very weights that were found and hashed."""

from __future__ import annotations

import torch

from emcache.backbones.build import build_backbone, random_backbone
from emcache.backbones.module import BackboneModule
from emcache.backbones.registry import BackboneSpec
from emcache.canonical import file_sha256
from emcache.errors import WeightsError
from emcache.weights import Weights, read_weights_file, state_sha256


def load_backbone(spec: BackboneSpec, weights: Weights, device: torch.device) -> BackboneModule:
    """The backbone with its weights, frozen, on the device, in inference mode.

    Raises:
        WeightsError: The weights do not fit, or changed since they were hashed.
    """
    if weights.file is None:
        assert weights.seed is not None  # noqa: S101 - weights are a file or a seed
        backbone = random_backbone(spec, weights.seed)
        found = state_sha256(backbone.model.state_dict())
    else:
        backbone = build_backbone(spec)
        backbone.load(read_weights_file(weights.file), weights.label)
        found = file_sha256(weights.file)
    # Hours may lie between planning and loading; the key must be that of these very bytes.
    if found != weights.sha256:
        raise WeightsError(
            f"the weights {weights.label} changed after they were hashed; run the command again.",
            subject=weights.file,
        )
    return backbone.eval().requires_grad_(False).to(device)
