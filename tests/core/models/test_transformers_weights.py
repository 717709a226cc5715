"""Weights in the names of ``transformers``, with its own forward pass as the reference."""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import pytest
import torch
import transformers
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file
from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

import emcache.models.backbones.timm_vit
from emcache.errors import WeightsError
from emcache.models.backbones.base import BackboneModule, build_backbone
from emcache.models.backbones.registry import BackboneSpec, find_backbone
from emcache.models.loading import describe_loaded, fit_weights, load_backbone
from emcache.models.weights import find_weights
from emcache.models.weights.files import locate
from emcache.storage.file_index import FileIndex

CPU = torch.device("cpu")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56}
DINOV2 = {**SMALL, "patch_size": 14}
DINOV3 = {**SMALL, "patch_size": 16, "num_register_tokens": 4, "intermediate_size": 64}
TOWER = {**DINOV2, "intermediate_size": 64, "projection_dim": 24, "hidden_act": "gelu"}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "intermediate_size": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def vit(**options: Any) -> VisionTransformer:
    """timm's DINOv2, small."""
    options = {"init_values": 1.0, **options}
    return VisionTransformer(
        img_size=56, patch_size=14, embed_dim=32, depth=2, num_heads=2, num_classes=0,
        global_pool="token", dynamic_img_size=True, **options,
    )  # fmt: skip


def eva(**options: Any) -> Eva:
    """timm's DINOv3, small."""
    return Eva(
        img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2, num_classes=0,
        dynamic_img_size=True, init_values=1.0, rope_type="dinov3", rope_temperature=100,
        use_rot_pos_emb=True, use_abs_pos_emb=False, rope_rotate_half=True, num_reg_tokens=4,
        use_fc_norm=False, norm_layer=partial(LayerNorm, eps=1e-5), **options,
    )  # fmt: skip


class Family(NamedTuple):
    """A kind of model, in both libraries."""

    theirs: Callable[[], Any]
    ours: Callable[[], Any] | None
    """timm's model; None for OpenCLIP's tower."""
    patch: int
    prefix: int
    """Tokens before those of patches."""
    spare: int
    """Tensors of the file that the backbone does not need."""


def clip() -> Any:
    return transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=TOWER, text_config=TEXT, projection_dim=24)
    )


def swiglu() -> Any:
    # transformers rounds two thirds of four times the width up to a multiple of eight: 88.
    return vit(mlp_layer=SwiGLUPacked, act_layer=nn.SiLU, mlp_ratio=2 * 88 / 32)


FAMILIES = {
    "dinov2": Family(
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**DINOV2)), vit, 14, 1, 1
    ),
    "dinov2-swiglu": Family(
        lambda: transformers.Dinov2Model(
            transformers.Dinov2Config(**DINOV2, use_swiglu_ffn=True)
        ),
        swiglu, 14, 1, 1,
    ),
    "dinov2-registers": Family(
        lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**DINOV2)
        ),
        lambda: vit(reg_tokens=4, no_embed_class=True), 14, 5, 1,
    ),
    "dinov2-classifier": Family(
        lambda: transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**DINOV2)),
        vit, 14, 1, 3,
    ),
    "dinov3": Family(
        lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**DINOV3)),
        lambda: eva(qkv_bias=True), 16, 5, 1,
    ),
    "dinov3-gated": Family(
        lambda: transformers.DINOv3ViTModel(
            transformers.DINOv3ViTConfig(**DINOV3, use_gated_mlp=True, hidden_act="silu")
        ),
        lambda: eva(qkv_bias=True, swiglu_mlp=True, swiglu_align_to=8), 16, 5, 1,
    ),
    # A text tower of one layer, the projection of texts, and a scale.
    "clip": Family(clip, None, 14, 1, 22),
    "clip-vision": Family(
        lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TOWER)),
        None, 14, 1, 0,
    ),
    "clip-projection": Family(
        lambda: transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(**TOWER)
        ),
        None, 14, 1, 0,
    ),
}  # fmt: skip


class Pair(NamedTuple):
    family: Family
    theirs: Any
    folder: Path
    spec: BackboneSpec

    @property
    def state(self) -> dict[str, Tensor]:
        return load_file(self.folder / "model.safetensors")

    def fresh(self) -> BackboneModule:
        return build_backbone(self.spec)


@pytest.fixture
def tower(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The configuration of a small OpenCLIP tower, which a test may change."""
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 14, "image_size": 56}
    config = {"embed_dim": 24, "vision_cfg": {**vision, "mlp_ratio": 2.0}}
    monkeypatch.setattr(open_clip, "get_model_config", lambda _: config)
    return config


@pytest.fixture(params=FAMILIES)
def pair(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tower: dict[str, Any],
) -> Pair:
    """A model of transformers, saved by it, and the backbone that its weights are for."""
    family = FAMILIES[request.param]
    torch.manual_seed(0)
    theirs = family.theirs().eval()
    with torch.no_grad():
        # Nothing stays at the zeros and ones that it starts with.
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "whole")
    if family.ours is not None:
        monkeypatch.setattr(emcache.models.backbones.timm_vit, "build", lambda _: family.ours())
    library: Any = "open_clip" if family.ours is None else "timm"
    spec = BackboneSpec("small", library, "small", family.patch, 32, None)
    return Pair(family, theirs, tmp_path / "whole", spec)


def reference(pair: Pair, images: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens after the last normalisation, and the class token, by transformers' own forward."""
    model = pair.theirs
    if hasattr(model, "dinov2"):
        model = model.dinov2
    if pair.family.ours is None:
        model = getattr(model, "vision_model", model)
        # Its position embeddings are for one size, unless it is told to resample them.
        hidden = model(images, interpolate_pos_encoding=True).last_hidden_state
        hidden = model.post_layernorm(hidden)
    else:
        hidden = model(images).last_hidden_state
    return hidden[:, pair.family.prefix :], hidden[:, 0]


GRIDS = [(4, 4), (4, 7), (3, 5), (9, 6)]


@pytest.mark.parametrize("form", ["whole", "sharded", "memory", "half"])
def test_tokens_equal_those_of_transformers(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    folder = pair.folder
    if form == "sharded":
        folder = tmp_path / "shards"
        pair.theirs.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 2
    elif form == "memory":
        # The names that its models have in memory, which some are not the names of its files.
        folder = tmp_path / "memory"
        folder.mkdir()
        torch.save(pair.theirs.state_dict(), folder / "pytorch_model.bin")
    elif form == "half":
        pair.theirs.half().save_pretrained(folder)
        pair.theirs.float()
    weights = find_weights(str(folder), pair.spec, FileIndex(tmp_path / "index.json"))
    backbone = load_backbone(pair.spec, weights, CPU)
    # Resampling of position embeddings: transformers' DINOv2 and CLIP do it without antialiasing,
    # timm and OpenCLIP with it. With it in both, any grid has to give the same tokens.
    resample = functional.interpolate
    monkeypatch.setattr(functional, "interpolate", partial(resample, antialias=True))
    for rows, columns in GRIDS if form in ("whole", "sharded") else GRIDS[:2]:
        images = torch.randn(2, 3, rows * pair.family.patch, columns * pair.family.patch)
        with torch.inference_mode():
            tokens, cls = reference(pair, images)
            ours = backbone(images)
        expected = tokens.transpose(1, 2).unflatten(2, (rows, columns))
        torch.testing.assert_close(ours.tokens, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.cls, cls, atol=1e-4, rtol=0)


def test_every_tensor_is_used_or_named(pair: Pair) -> None:
    backbone, loaded = fit_weights(pair.spec, locate(pair.folder, pair.spec.family), "these")
    assert {*loaded.used, *loaded.spare} == pair.state.keys()
    assert not {*loaded.used} & loaded.spare.keys()
    assert len(loaded.spare) == pair.family.spare
    said = "".join(describe_loaded("these", loaded))
    assert (f"{len(loaded.used)} of {len(pair.state)} tensors" in said) == bool(loaded.spare)
    # What was used is in the backbone: another value makes another backbone.
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    for name in first_layers(loaded.used):
        backbone.load({**pair.state, name: pair.state[name] + 1}, "these")
        after = backbone.model.state_dict()
        assert any(not torch.equal(after[key], before[key]) for key in before), name


def first_layers(names: Iterable[str]) -> list[str]:
    """Without the second layer, which is like the first."""
    return [name for name in names if ".1." not in name]


@pytest.mark.parametrize("pair", ["dinov2-registers", "dinov3-gated", "clip"], indirect=True)
def test_no_tensor_may_be_missing_more_or_of_another_size(pair: Pair) -> None:
    backbone, state = pair.fresh(), pair.state
    _, loaded = fit_weights(pair.spec, locate(pair.folder, pair.spec.family), "these")
    for name in first_layers(loaded.used):
        left = {key: value for key, value in state.items() if key != name}
        twice = torch.cat([state[name], state[name]])
        with pytest.raises(WeightsError, match=r"has shape|is missing"):
            backbone.load({**state, name: twice}, "these")
        with pytest.raises(WeightsError, match="is not part of the backbone"):
            backbone.load({**left, f"wrapped.{name}": state[name]}, "these")
        if name != "visual_projection.weight":
            with pytest.raises(WeightsError, match="is missing"):
                backbone.load(left, "these")
    third = {key.replace(".1.", ".2."): value for key, value in state.items() if ".1." in key}
    with pytest.raises(WeightsError, match=r"\.2\..* is not part of the backbone"):
        backbone.load({**state, **third}, "these")


def test_two_tensors_of_many_are_not_enough(pair: Pair) -> None:
    backbone = pair.fresh()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"is missing.*and \d+ more"):
        backbone.load(dict(list(pair.state.items())[:2]), "these")
    after = backbone.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("pair", ["dinov2", "clip"], indirect=True)
def test_two_names_for_one_tensor_are_refused(pair: Pair) -> None:
    state = pair.state
    within = "dinov2." if pair.family.ours else ""
    (name,) = (key for key in state if key.endswith(("position_embeddings", "class_embedding")))
    other = f"{within}{name.removeprefix('vision_model.')}"
    with pytest.raises(WeightsError, match="is missing"):
        pair.fresh().load({**state, other: state[name] + 1}, "these")


@pytest.mark.parametrize(
    ("pair", "key", "value", "said"),
    [
        ("dinov2", "num_attention_heads", 4, "num_attention_heads is 4, and small has 2"),
        ("dinov2", "layer_norm_eps", 1e-5, "layer_norm_eps is 1e-05, and small has 1e-06"),
        ("dinov3", "rope_theta", 10.0, "rope_theta is 10.0, and small has 100"),
        ("dinov2-registers", "hidden_act", "relu", "hidden_act is 'relu', and small has 'gelu'"),
        ("clip-vision", "hidden_act", "quick_gelu", "hidden_act is 'quick_gelu', and small has"),
        ("clip", "num_attention_heads", 8, "num_attention_heads is 8, and small has 2"),
    ],
    indirect=["pair"],
)
def test_what_no_tensor_shows_is_read_from_the_configuration(
    pair: Pair, key: str, value: object, said: str
) -> None:
    path = pair.folder / "config.json"
    config = json.loads(path.read_text())
    config.get("vision_config", config)[key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=re.escape(said)):
        fit_weights(pair.spec, locate(pair.folder, pair.spec.family), "these")
    # A file by itself has no configuration, and one of something else says nothing.
    path.write_text(json.dumps({**config, "model_type": "another"}))
    fit_weights(pair.spec, locate(pair.folder, pair.spec.family), "these")


@pytest.mark.parametrize("pair", ["clip"], indirect=True)
def test_quick_gelu_in_both(pair: Pair, tower: dict[str, Any], tmp_path: Path) -> None:
    tower["quick_gelu"] = True
    with pytest.raises(WeightsError, match="hidden_act is 'gelu', and small has 'quick_gelu'"):
        fit_weights(pair.spec, locate(pair.folder, "open_clip"), "these")
    assert isinstance(pair.fresh().model.transformer.resblocks[0].mlp.gelu, QuickGELU)


@pytest.mark.parametrize("pair", ["dinov3"], indirect=True)
def test_biases_of_zeros_are_named_and_others_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm has DINOv3 without the biases of queries and values, which are zero in the release."""
    monkeypatch.setattr(emcache.models.backbones.timm_vit, "build", lambda _: eva(qkv_bias=False))
    state = pair.state
    biases = [name for name in state if name.endswith(("q_proj.bias", "v_proj.bias"))]
    with pytest.raises(WeightsError, match=r"q_proj\.bias is not part of the backbone"):
        pair.fresh().load(state, "these")
    loaded = pair.fresh().load({**state, **{b: 0 * state[b] for b in biases}}, "these")
    assert {name for name, why in loaded.spare.items() if why == "bias of zeros"} == {*biases}


@pytest.mark.weights
def test_a_real_checkpoint_in_transformers_names(
    pretrained_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint under timm's names and under transformers' own gives transformers' tokens."""
    folder = tmp_path / "hub"
    folder.mkdir()
    state = {name: tensor.float() for name, tensor in load_file(pretrained_file).items()}
    save_file(in_transformers_names(state), folder / "model.safetensors", {"format": "pt"})
    config = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14
    )
    config.save_pretrained(folder)
    theirs = transformers.Dinov2Model.from_pretrained(folder).eval()
    shutil.rmtree(folder)
    theirs.save_pretrained(folder, max_shard_size="20MB")
    assert (folder / "model.safetensors.index.json").is_file()
    spec, index = find_backbone("dinov2-small"), FileIndex(tmp_path / "index.json")
    resample = functional.interpolate
    monkeypatch.setattr(functional, "interpolate", partial(resample, antialias=True))
    for source, rows, columns in ((pretrained_file, 9, 14), (folder, 37, 37), (folder, 9, 14)):
        backbone = load_backbone(spec, find_weights(str(source), spec, index), CPU)
        image = torch.randn(1, 3, 14 * rows, 14 * columns)
        with torch.inference_mode():
            hidden, ours = theirs(image).last_hidden_state, backbone(image)
        expected = hidden[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))
        torch.testing.assert_close(ours.tokens, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.cls, hidden[:, 0], atol=1e-4, rtol=0)


def in_transformers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's DINOv2 under the names of ``transformers``."""
    names = (
        ("cls_token", "embeddings.cls_token"),
        ("pos_embed", "embeddings.position_embeddings"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("blocks.", "encoder.layer."),
        ("attn.proj", "attention.output.dense"),
        ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"),
    )
    renamed = {}
    for key, tensor in state.items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        if key.startswith("norm."):
            key = f"layer{key}"
        if "attn.qkv" in key:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                # A copy: a file of safetensors holds no two views of one memory.
                renamed[key.replace("attn.qkv", f"attention.attention.{part}")] = piece.clone()
        else:
            renamed[key] = tensor
    return renamed
