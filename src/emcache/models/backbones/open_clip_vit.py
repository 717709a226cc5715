"""OpenCLIP's vision towers behind the protocol of all backbones.

The tower is used before its projection, and its position embeddings are resampled to the grid at
hand, square or not: OpenCLIP's own forward pass takes one image size only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import open_clip
import torch
from jaxtyping import Float
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from emcache.errors import BackboneError, suggest
from emcache.models.backbones.base import BackboneModule, Features
from emcache.models.backbones.registry import BackboneSpec, HubFile
from emcache.models.backbones.transformers_names import beside_vision, rename_clip


class PackedAttention(nn.Module):
    """Self-attention with the parameters of an ``nn.MultiheadAttention``, which it takes over."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if attention.in_proj_weight is None or attention.dropout or not attention.batch_first:
            raise BackboneError(
                "an attention layer has separate projections, dropout or another layout; expected "
                "a packed one without dropout, batch first: choose another backbone."
            )
        dim = attention.embed_dim
        self.heads = attention.num_heads
        # Made without memory, since the parameters are the old ones.
        self.qkv = nn.Linear(dim, 3 * dim, device="meta")
        self.proj = nn.Linear(dim, dim, device="meta")
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.proj.weight, self.proj.bias = attention.out_proj.weight, attention.out_proj.bias

    def forward(
        self, query: Float[Tensor, "batch token channel"], *_others: Any, **_options: Any
    ) -> tuple[Float[Tensor, "batch token channel"], None]:
        """Attend; key and value are the query, and no weights are returned."""
        shape = (*query.shape[:2], 3, self.heads, -1)
        q, k, v = self.qkv(query).reshape(shape).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2)), None


_VISION_PREFIX = "visual."
_HUB_FILE = "open_clip_model.safetensors"


class OpenClipBackbone(BackboneModule):
    """An OpenCLIP vision tower that takes any grid of patches."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        self.model = _build_tower(spec.architecture)

    @property
    def blocks(self) -> nn.Module:
        """The transformer's blocks."""
        blocks: nn.Module = self.model.transformer.resblocks
        return blocks

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Patch tokens and class token of the last layer, after its normalisation."""
        tower = self.model
        patches = tower.conv1(images)
        rows, columns = patches.shape[-2:]
        sequence = patches.flatten(2).transpose(1, 2)
        cls = tower.class_embedding.to(sequence.dtype).expand(len(sequence), 1, -1)
        sequence = torch.cat([cls, sequence], dim=1)
        positions = resample_positions(tower.positional_embedding, tower.grid_size, (rows, columns))
        sequence = tower.ln_pre(sequence + positions.to(sequence.dtype))
        return self.features(tower.ln_post(tower.transformer(sequence)), (rows, columns))

    @property
    def final_norm(self) -> nn.Module:
        """What normalises the output of the last block."""
        norm: nn.Module = self.model.ln_post
        return norm

    def features(
        self, sequence: Float[Tensor, "batch token channel"], grid: tuple[int, int]
    ) -> Features:
        """Patch tokens and class token of a normalised sequence."""
        patches: Tensor = sequence[:, 1:].unflatten(1, grid)  # type: ignore[no-untyped-call]
        return Features(patches.permute(0, 3, 1, 2), sequence[:, 0])

    def make_adaptable(self) -> None:
        """Hold every attention's packed projection as a linear layer."""
        for block in self.model.transformer.resblocks:
            if isinstance(block.attn, nn.MultiheadAttention):
                block.attn = PackedAttention(block.attn)

    # Tokens are taken before the projection, and transformers has towers without it.
    unneeded: ClassVar[frozenset[str]] = frozenset(["proj"])

    def find_spare(self, name: str, state: Mapping[str, Tensor]) -> str | None:
        """What a tensor of a file is that tokens do not depend on; None where they may."""
        return beside_vision(name, state)

    def traits(self) -> Mapping[str, object]:
        """What decides tokens and no tensor shows, under the names of ``transformers``' configs."""
        block = self.model.transformer.resblocks[0]
        activations = {nn.GELU: "gelu", QuickGELU: "quick_gelu"}
        traits = {
            "num_attention_heads": getattr(block.attn, "num_heads", None),
            "layer_norm_eps": block.ln_1.eps,
            "hidden_act": activations.get(type(getattr(block.mlp, "gelu", None))),
        }
        return {name: value for name, value in traits.items() if value is not None}

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tower's own names from those of a whole CLIP, of a tower, or from transformers'."""
        if (renamed := rename_clip(state)) is not None:
            return renamed
        tower = {
            key.removeprefix(_VISION_PREFIX): value
            for key, value in state.items()
            if key.startswith(_VISION_PREFIX)
        }
        return tower or state


def resample_positions(
    embedding: Float[Tensor, "position channel"],
    trained: tuple[int, int],
    wanted: tuple[int, int],
) -> Float[Tensor, "new_position channel"]:
    """Position embeddings of another grid: bicubic with antialiasing, as OpenCLIP's own loader.

    Args:
        embedding: One for the class token, then the trained grid row by row.
        trained: Rows and columns that the tower was trained with.
        wanted: Rows and columns at hand.
    """
    if tuple(trained) == wanted:
        return embedding
    cls, grid = embedding[:1], embedding[1:]
    image = grid.T.reshape(1, -1, *trained).float()
    resampled = functional.interpolate(
        image, size=wanted, mode="bicubic", antialias=True, align_corners=False
    )
    return torch.cat([cls, resampled[0].flatten(1).T.to(cls.dtype)])


def describe(architecture: str) -> BackboneSpec:
    """The spec of any of OpenCLIP's plain vision towers; nothing is allocated.

    Args:
        architecture: As ``ViT-B-16``, or ``ViT-B-16@TAG`` to name pretrained weights.

    Raises:
        BackboneError: OpenCLIP has no such model or tag, or its tower is not a plain transformer.
    """
    name = f"open_clip:{architecture}"
    base, _, tag = architecture.partition("@")
    if base not in open_clip.list_models():
        hint = suggest(base, open_clip.list_models(), "open_clip:")
        raise BackboneError(
            f"open_clip has no model {base!r:.80}; {hint}expected a name that "
            f"open_clip.list_models() gives.",
            subject=name,
        )
    with torch.device("meta"):
        tower = _build_tower(base)
    rows, columns = tower.patch_size
    if rows != columns:
        raise BackboneError(
            f"{name} has patches of {rows} x {columns} pixels; expected square ones.", subject=name
        )
    hub = None
    if tag:
        facts = open_clip.get_pretrained_cfg(base, tag) or {}
        repository = facts.get("hf_hub")
        if not repository:
            known = ", ".join(open_clip.list_pretrained_tags_by_model(base))
            raise BackboneError(
                f"open_clip has no weights {tag!r} of {base} on the hub; known: {known}.",
                subject=name,
            )
        activation = open_clip.get_model_config(base).get("quick_gelu", False)
        if facts.get("quick_gelu", False) != activation:
            # The keys would fit, and every token would be a little wrong.
            other = f"{base}-quickgelu" if not activation else base.removesuffix("-quickgelu")
            raise BackboneError(
                f"the weights {tag!r} were trained with another activation than {base} has; use "
                f"open_clip:{other}@{tag}.",
                subject=name,
            )
        hub = HubFile(repository.strip("/"), _HUB_FILE)
    return BackboneSpec(name, "open_clip", base, rows, tower.transformer.width, hub)


def _build_tower(architecture: str) -> Any:
    config = open_clip.get_model_config(architecture)
    # OpenCLIP has no public way to build a tower alone; with its text half it would be twice as
    # large and slow to make.
    tower = open_clip.model._build_vision_tower(  # noqa: SLF001
        config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)
    )
    if not isinstance(tower, VisionTransformer) or tower.attn_pool is not None:
        raise BackboneError(
            f"the vision tower of open_clip:{architecture} is not a plain vision transformer; "
            f"choose one of the ViT-* models.",
            subject=architecture,
        )
    return tower
