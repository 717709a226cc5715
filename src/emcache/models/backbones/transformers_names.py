"""Names that ``transformers`` gives the tensors of DINOv2, DINOv3 and CLIP's vision tower.

There are two for some: those of files, and since version 5 those of its models in memory.

Each family is a list of rules from its names to those of the library that runs it. What no rule
knows keeps its name, and so does what two rules would give one name: the comparison with the
backbone refuses both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_TEXT = r"text_model|text_encoder|text|text_decoder|transformer|token_embedding|ln_final"
_BESIDE_VISION: tuple[tuple[str, str], ...] = (
    (rf"^({_TEXT})\.", "text tower"),
    (r"^(positional_embedding|text_projection(\.weight)?|attn_mask)$", "text tower"),
    (r"^(logit_scale|logit_bias)$", "scale of a comparison with text"),
    (r"^(input_resolution|context_length|vocab_size)$", "size of the model"),
    (r"^visual_projection\.weight$", "projection beside text"),
    (r"(^|\.)embeddings\.position_ids$", "list of positions"),
)
_VISION = ("visual.", "vision_model.", "vision_encoder.")

# Models with a head for a task put the backbone's name before its tensors'.
_WITHIN = r"(?:(?:dinov2|dinov2_with_registers|dinov3_vit|backbone)\.)?"
_LAYER = r"encoder\.layer\.(\d+)\."
_ATTENTION = r"blocks.\1.attn."

_DINOV2 = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (_LAYER + r"(norm[12])\.(weight|bias)", r"blocks.\1.\2.\3"),
    (_LAYER + r"attention\.(?:attention\.query|q_proj)\.(weight|bias)", _ATTENTION + r"query.\2"),
    (_LAYER + r"attention\.(?:attention\.key|k_proj)\.(weight|bias)", _ATTENTION + r"key.\2"),
    (_LAYER + r"attention\.(?:attention\.value|v_proj)\.(weight|bias)", _ATTENTION + r"value.\2"),
    (_LAYER + r"attention\.(?:output\.dense|o_proj)\.(weight|bias)", _ATTENTION + r"proj.\2"),
    (_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (_LAYER + r"mlp\.(?:fc1|weights_in)\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"mlp\.(gate|up)_proj\.(weight|bias)", r"blocks.\1.mlp.\2.\3"),
    (_LAYER + r"mlp\.(?:fc2|weights_out|down_proj)\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
)
_DINOV3_LAYER = r"(?:model\.)?layer\.(\d+)\."
_DINOV3 = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.patch_embeddings\.(weight|bias)", r"patch_embed.proj.\1"),
    (_DINOV3_LAYER + r"(norm[12])\.(weight|bias)", r"blocks.\1.\2.\3"),
    (_DINOV3_LAYER + r"attention\.q_proj\.weight", _ATTENTION + "query.weight"),
    (_DINOV3_LAYER + r"attention\.k_proj\.weight", _ATTENTION + "key.weight"),
    (_DINOV3_LAYER + r"attention\.v_proj\.weight", _ATTENTION + "value.weight"),
    (_DINOV3_LAYER + r"attention\.([qv])_proj\.bias", _ATTENTION + r"\2_bias"),
    (_DINOV3_LAYER + r"attention\.o_proj\.(weight|bias)", _ATTENTION + r"proj.\2"),
    (_DINOV3_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.gamma_\2"),
    (_DINOV3_LAYER + r"mlp\.gate_proj\.(weight|bias)", r"blocks.\1.mlp.fc1_g.\2"),
    (_DINOV3_LAYER + r"mlp\.up_proj\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (_DINOV3_LAYER + r"mlp\.down_proj\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"norm\.(weight|bias)", r"norm.\1"),
)
_CLIP_WITHIN = r"(?:vision_model\.)?"
_CLIP_LAYER = r"encoder\.layers\.(\d+)\."
_CLIP_BLOCK = r"transformer.resblocks.\1."
_CLIP = (
    (r"embeddings\.class_embedding", "class_embedding"),
    (r"embeddings\.patch_embedding\.weight", "conv1.weight"),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"pre_layrnorm\.(weight|bias)", r"ln_pre.\1"),
    (r"post_layernorm\.(weight|bias)", r"ln_post.\1"),
    (_CLIP_LAYER + r"layer_norm([12])\.(weight|bias)", _CLIP_BLOCK + r"ln_\2.\3"),
    (_CLIP_LAYER + r"self_attn\.q_proj\.(weight|bias)", _CLIP_BLOCK + r"attn.query.\2"),
    (_CLIP_LAYER + r"self_attn\.k_proj\.(weight|bias)", _CLIP_BLOCK + r"attn.key.\2"),
    (_CLIP_LAYER + r"self_attn\.v_proj\.(weight|bias)", _CLIP_BLOCK + r"attn.value.\2"),
    (_CLIP_LAYER + r"self_attn\.out_proj\.(weight|bias)", _CLIP_BLOCK + r"attn.out_proj.\2"),
    (_CLIP_LAYER + r"mlp\.fc1\.(weight|bias)", _CLIP_BLOCK + r"mlp.c_fc.\2"),
    (_CLIP_LAYER + r"mlp\.fc2\.(weight|bias)", _CLIP_BLOCK + r"mlp.c_proj.\2"),
)
_QKV = ("query", "key", "value")


def rename_dino(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Timm's names of a DINOv2 or DINOv3 in those of ``transformers``; None of any other state.

    Args:
        state: ``Dinov2Model``, ``Dinov2WithRegistersModel`` or ``DINOv3ViTModel``, bare or within a
            model for a task.
    """
    if not any("layer_scale1.lambda1" in name for name in state):
        return None
    if not any("embeddings.patch_embeddings.projection." in name for name in state):
        renamed = _rename(state, _WITHIN, _DINOV3)
        return _merge(_gated(renamed), _QKV, "{}qkv.{}")
    renamed = _merge(_rename(state, _WITHIN, _DINOV2), _QKV, "{}qkv.{}")
    renamed = _merge(renamed, ("gate", "up"), "{}fc1.{}")
    tokens = [renamed.get(name) for name in ("reg_token", "cls_token", "pos_embed")]
    if all(token is not None and token.ndim == 3 for token in tokens):
        # With registers, timm adds positions to patches alone; the class token brings its own.
        positions = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


def rename_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """OpenCLIP's names of a vision tower in those of ``transformers``; None of any other state.

    Args:
        state: ``CLIPModel``, ``CLIPVisionModel``, or the latter with its projection.
    """
    if not any(name.endswith("embeddings.class_embedding") for name in state):
        return None
    renamed = _merge(_rename(state, _CLIP_WITHIN, _CLIP), _QKV, "{}in_proj_{}")
    projection = renamed.get("visual_projection.weight")
    if projection is not None and projection.ndim == 2:
        renamed["proj"] = renamed.pop("visual_projection.weight").T
    return renamed


def beside_vision(name: str, state: Mapping[str, Tensor]) -> str | None:
    """What a tensor is that a model of pictures and texts has beside its vision tower.

    Args:
        name: In OpenCLIP's names or in those of ``transformers``.
        state: All tensors; a file of a tower alone has nothing beside it, and its own blocks are
            called as those of texts are.
    """
    if not any(key.startswith(_VISION) for key in state):
        return None
    return next((why for rule, why in _BESIDE_VISION if re.search(rule, name)), None)


def _rename(
    state: Mapping[str, Tensor], within: str, rules: tuple[tuple[str, str], ...]
) -> dict[str, Tensor]:
    compiled = [(re.compile(within + pattern), new) for pattern, new in rules]
    names: dict[str, str] = {}
    for name in state:
        found = ((pattern.fullmatch(name), new) for pattern, new in compiled)
        names[name] = next((match.expand(new) for match, new in found if match), name)
    taken = Counter(names.values())
    return {
        names[name] if taken[names[name]] == 1 else name: tensor for name, tensor in state.items()
    }


def _gated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Where a layer's MLP has a gate, what goes up beside it has another name than without."""
    gated = {name.partition("fc1_g.")[0] for name in state if ".mlp.fc1_g." in name}
    return {
        name.replace("fc1.", "fc1_x.") if name.partition("fc1.")[0] in gated else name: tensor
        for name, tensor in state.items()
    }


def _merge(state: dict[str, Tensor], parts_of: Sequence[str], packed: str) -> dict[str, Tensor]:
    """Queries, keys and values as one tensor, where all three are there and of one size."""
    merged = dict(state)
    first = re.compile(rf"(.*\.){parts_of[0]}\.(weight|bias)")
    for match in filter(None, map(first.fullmatch, state)):
        names = [f"{match[1]}{part}.{match[2]}" for part in parts_of]
        parts = [state[name] for name in names if name in state]
        if len(parts) == len(names) and len({part.shape for part in parts}) == 1 and parts[0].ndim:
            for name in names:
                del merged[name]
            merged[packed.format(match[1], match[2])] = torch.cat(parts)
    return merged
