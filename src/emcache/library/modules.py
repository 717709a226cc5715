"""Backbones and heads as modules of PyTorch, for what emcache itself does not do."""

from __future__ import annotations

from typing import get_args

from emcache.errors import UsageError
from emcache.library.workspace import Workspace
from emcache.models import heads, loading
from emcache.models.backbones.base import BackboneModule
from emcache.models.backbones.registry import find_backbone
from emcache.models.device import pick_device
from emcache.models.weights import PRETRAINED, find_workspace_weights
from emcache.progress import Reporter


def load_backbone(
    name: str,
    weights: str = PRETRAINED,
    *,
    workspace: Workspace | None = None,
    device: str = "auto",
    progress: Reporter | None = None,
) -> BackboneModule:
    """A frozen backbone in inference mode: normalised images in, patch tokens and class token out.

    Args:
        name: Of the backbone, as ``dinov2-small``.
        weights: ``pretrained``, ``random:SEED``, ``hf:REPOSITORY``, a short name or a file.
        workspace: Whose short names of weights hold; None for the one that the current folder is
            in.
        device: Where it computes.
        progress: Receives what the weights' file holds beside the backbone.

    Raises:
        BackboneError: There is no such backbone.
        WeightsError: The weights are not there or do not fit.
    """
    spec = find_backbone(name)
    place = (workspace or Workspace.open()).place
    found = find_workspace_weights(place, weights, spec)
    return loading.load_backbone(spec, found, pick_device(device), progress)


def build_head(kind: str, dim: int, *, classes: int = 2, seed: int = 0) -> heads.Head:
    """An untrained head, the same for the same seed: tokens and a size in, logits out.

    Args:
        kind: ``deconv``, the study's head; ``deconv-skip``, the same with a branch that reads the
            normalised slices, as a third argument; or ``linear``, batch norm and one 1x1
            convolution.
        dim: Channels of a token.
        classes: Outputs, the background among them.
        seed: Of its weights.

    Raises:
        UsageError: There is no such head.
    """
    if kind not in (known := get_args(heads.TrainedKind)):
        raise UsageError(
            f"there is no head {kind!r:.100}; known: {', '.join(known)}.", subject=kind
        )
    return heads.build_head(kind, dim, seed, classes)  # type: ignore[arg-type]
