"""timm's vision transformers (DINOv2, DINOv3 and others) behind the protocol of all backbones."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import timm
import torch
from jaxtyping import Float
from timm.layers import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from emcache.errors import BackboneError, suggest
from emcache.models.backbones.base import BackboneModule, Features
from emcache.models.backbones.registry import BackboneSpec, HubFile
from emcache.models.backbones.tracing import sources_of
from emcache.models.backbones.transformers_names import beside_vision, rename_clip, rename_dino

_TINY_GRID = 10
_PATCHES = "patch_embed.proj.weight"
_ZERO = "bias of zeros"
# Query, key and value: in transformers' names, and packed in the official DINOv3 release.
_BIAS = re.compile(r".*(attention\.[qkv]_proj|attn\.qkv)\.bias")


class TimmBackbone(BackboneModule):
    """A timm vision transformer that takes any grid of patches."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__(spec)
        self.model = build(spec)

    @property
    def blocks(self) -> nn.Module:
        """The transformer's blocks."""
        blocks: nn.Module = self.model.blocks
        return blocks

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Patch tokens and class token of the last layer, after its normalisation.

        A model without a class token gives the mean of its patch tokens instead.
        """
        rows, columns = (side // self.patch for side in images.shape[-2:])
        return self.features(self.model.forward_features(images), (rows, columns))

    @property
    def final_norm(self) -> nn.Module:
        """What normalises the output of the last block."""
        norm: nn.Module = self.model.norm
        return norm

    def features(
        self, sequence: Float[Tensor, "batch token channel"], grid: tuple[int, int]
    ) -> Features:
        """Patch tokens and class token of a normalised sequence."""
        # Class token and registers come first; the model knows how many they are.
        patches = sequence[:, self.model.num_prefix_tokens :]
        # A view: the tokens stay in channels-last order, as they are stored.
        tokens = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # type: ignore[no-untyped-call]
        has_cls = getattr(self.model, "cls_token", None) is not None
        return Features(tokens, sequence[:, 0] if has_cls else patches.mean(dim=1))

    def block_options(self, grid: tuple[int, int]) -> Sequence[Mapping[str, Any]]:
        """Rotary positions, of models that have them: the same for all blocks, or one for each."""
        rope = getattr(self.model, "rope", None)
        if rope is None:
            return super().block_options(grid)
        positions = rope.get_embed(shape=grid)
        mixed = getattr(self.model, "rope_mixed", False)
        count = len(self.model.blocks)
        return [{"rope": positions[number] if mixed else positions} for number in range(count)]

    spare_rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(^|\.)mask_token$", "mask token"),
        (
            r"^(head|classifier|visual\.head|visual\.proj$|fc_norm|pre_logits|lm_head)",
            "head of a task",
        ),
        (r"^rope_embed\.|(^|\.)rope(\.|$)", "table of rotary positions"),
        (r"\.bias_mask$", "mask of a bias"),
        (r"^projectors\.|^local_cls_norm", "part for training alone"),
    )

    def find_spare(self, name: str, state: Mapping[str, Tensor]) -> str | None:
        """What a tensor of a file is that tokens do not depend on; None where they may."""
        if _BIAS.fullmatch(name) and _is_zero(state[name], state.get(f"{name}_mask")):
            return _ZERO
        return super().find_spare(name, state) or beside_vision(name, state)

    def traits(self) -> Mapping[str, object]:
        """What decides tokens and no tensor shows, under the names of ``transformers``' configs."""
        block = self.model.blocks[0]
        attention, mlp, norm = (getattr(block, name, None) for name in ("attn", "mlp", "norm1"))
        activation = getattr(mlp, "act", None)
        traits = {
            "num_attention_heads": getattr(attention, "num_heads", None),
            "layer_norm_eps": getattr(norm, "eps", None),
            "hidden_act": {nn.GELU: "gelu", QuickGELU: "quick_gelu"}.get(type(activation)),
            "rope_theta": getattr(getattr(self.model, "rope", None), "temperature", None),
        }
        return {name: value for name, value in traits.items() if value is not None}

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Timm's own names from timm's, the official DINOv2's and DINOv3's, or transformers'."""
        named = dict(state)
        if (renamed := rename_dino(state)) is not None:
            named = renamed
        elif (tower := rename_clip(state)) is not None:
            named = {f"visual.{key}": value for key, value in tower.items()}
        patches = next((t for key, t in named.items() if key.endswith(_PATCHES)), None)
        if patches is not None and patches.ndim == 4:
            # timm would resample patches of another size, which is another backbone.
            own = self.model.patch_embed.proj.weight
            if patches.shape[2:] != own.shape[2:]:
                return named
        named = {key: t for key, t in named.items() if not self._is_left_out(key, named)}
        # Renames the official keys and resamples position embeddings of another grid.
        rename = sys.modules[type(self.model).__module__].checkpoint_filter_fn
        try:
            converted: Mapping[str, Tensor] = rename(named, self.model)
        except (RuntimeError, LookupError, ValueError, AttributeError, TypeError):
            # The state is of another kind; the comparison of keys will say which do not fit.
            converted = state
        return converted

    def remark(self, given: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """That position embeddings were resampled, where they were."""
        positions = given.get("pos_embed")
        if positions is None:
            return ()
        for name in sources_of(positions):
            # One more or less is the class token's.
            before, now = tuple(state[name].shape), tuple(positions.shape)
            if len(before) == 3 and abs(before[1] - now[1]) > 1:
                return (f"{name} of {before[1]} positions was resampled to {now[1]}",)
        return ()

    def _is_left_out(self, name: str, state: Mapping[str, Tensor]) -> bool:
        """Whether timm would leave out a bias of the official DINOv3, or the keys' part of it.

        What is not zero shows as left over then, and timm prints nothing about what is.
        """
        if not name.endswith("attn.qkv.bias") or "storage_tokens" not in state:
            return False
        bias, mask = state[name], state.get(f"{name}_mask")
        if getattr(self.model.blocks[0].attn, "q_bias", None) is None:
            return True
        keys = slice(len(bias) // 3, 2 * len(bias) // 3)
        return not _is_zero(bias[keys], None if mask is None else mask[keys])


def _is_zero(bias: Tensor, mask: Tensor | None) -> bool:
    """Whether a bias adds nothing, where a mask lets it."""
    if mask is not None and mask.shape == bias.shape:
        bias = bias[mask != 0]
    return not bias.any()


def describe(architecture: str) -> BackboneSpec:
    """The spec of any of timm's vision transformers; nothing is allocated.

    Raises:
        BackboneError: timm has no such model, or it is not a vision transformer of square patches.
    """
    name = f"timm:{architecture}"
    if not timm.is_model(architecture):
        hint = suggest(architecture, timm.list_models(), "timm:")
        raise BackboneError(
            f"timm has no model {architecture!r:.80}; {hint}expected a name that "
            f"timm.list_models() gives.",
            subject=name,
        )
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture, num_classes=0, dynamic_img_size=True)
        rows, columns = model.patch_embed.patch_size
        count = model.num_prefix_tokens
        blocks = model.blocks
    except (TypeError, AttributeError, RuntimeError) as error:
        raise BackboneError(
            f"{name} is not a vision transformer of plain patches ({error}); choose one of timm's "
            f"vit_* models.",
            subject=name,
        ) from error
    if rows != columns or count < 0 or not len(blocks):
        raise BackboneError(f"{name} has patches of {rows} x {columns}; expected square ones.")
    hub = model.pretrained_cfg.get("hf_hub_id")
    return BackboneSpec(
        name, "timm", architecture, rows, model.embed_dim, HubFile(hub) if hub else None
    )


def build(spec: BackboneSpec) -> Any:
    """The model of a spec as timm makes it, with random weights."""
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
