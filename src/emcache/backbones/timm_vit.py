"""timm's vision transformers (DINOv2, DINOv3 and others) behind the protocol of all backbones."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from emcache.backbones.module import BackboneModule
from emcache.backbones.protocol import Features
from emcache.backbones.registry import BackboneSpec, HubFile
from emcache.errors import BackboneError

_TINY_GRID = 10


class TimmBackbone(BackboneModule):
    """A timm vision transformer that takes any grid of patches."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        self.model = _build(spec)

    @property
    def blocks(self) -> nn.Module:
        """The transformer's blocks."""
        blocks: nn.Module = self.model.blocks
        return blocks

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Patch tokens and class token of the last layer, after its normalisation.

        A model without a class token gives the mean of its patch tokens instead.
        """
        sequence = self.model.forward_features(images)
        rows, columns = (side // self.patch for side in images.shape[-2:])
        # Class token and registers come first; the model knows how many they are.
        patches = sequence[:, self.model.num_prefix_tokens :]
        # A view: the tokens stay in channels-last order, as they are stored.
        grid = patches.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        has_cls = getattr(self.model, "cls_token", None) is not None
        return Features(grid, sequence[:, 0] if has_cls else patches.mean(dim=1))

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Timm's own names from timm's or the official DINOv2 and DINOv3 formats."""
        # Renames the official keys and resamples position embeddings of another grid.
        rename = sys.modules[type(self.model).__module__].checkpoint_filter_fn
        try:
            converted = rename(dict(state), self.model)
        except (RuntimeError, KeyError, ValueError, AttributeError, TypeError):
            # The state is of another kind; the comparison of keys will say which do not fit.
            converted = state
        # A classifier belongs to no backbone that is used for its tokens.
        return {key: value for key, value in converted.items() if not key.startswith("head.")}


def describe(architecture: str) -> BackboneSpec:
    """The spec of any of timm's vision transformers; nothing is allocated.

    Raises:
        BackboneError: timm has no such model, or it is no vision transformer of square patches.
    """
    name = f"timm:{architecture}"
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=1)
        hint = f"; did you mean timm:{close[0]}?" if close else ""
        raise BackboneError(f"timm has no model {architecture!r}{hint}", subject=name)
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture, num_classes=0, dynamic_img_size=True)
        rows, columns = model.patch_embed.patch_size
        count = model.num_prefix_tokens
        blocks = model.blocks
    except (TypeError, AttributeError, RuntimeError) as error:
        raise BackboneError(
            f"{name} is no vision transformer of plain patches ({error}); choose one of timm's "
            f"vit_* models.",
            subject=name,
        ) from error
    if rows != columns or count < 0 or not len(blocks):
        raise BackboneError(f"{name} has patches of {rows} x {columns}; expected square ones.")
    hub = model.pretrained_cfg.get("hf_hub_id")
    return BackboneSpec(
        name, "timm", architecture, rows, model.embed_dim, HubFile(hub) if hub else None
    )


def _build(spec: BackboneSpec) -> Any:
    if spec.family == "tiny":
        return VisionTransformer(
            img_size=_TINY_GRID * spec.patch,
            patch_size=spec.patch,
            embed_dim=spec.dim,
            depth=2,
            num_heads=2,
            num_classes=0,
            global_pool="token",
            dynamic_img_size=True,
        )
    return timm.create_model(spec.architecture, num_classes=0, dynamic_img_size=True)
