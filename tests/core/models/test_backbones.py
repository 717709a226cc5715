import copy
import re

import open_clip
import pytest
import torch

from emcache.errors import BackboneError, WeightsError
from emcache.models.backbones.base import build_backbone, random_backbone
from emcache.models.backbones.registry import STUDY_BACKBONES, TINY, BackboneSpec, find_backbone


@pytest.mark.parametrize("spec", STUDY_BACKBONES, ids=lambda spec: spec.name)
def test_the_studys_backbones_are_what_the_libraries_build(spec: BackboneSpec) -> None:
    described = find_backbone(f"{spec.family}:{spec.architecture}")
    assert (described.patch, described.dim) == (spec.patch, spec.dim)
    if spec.family == "timm":
        assert described.hub == spec.hub
    else:
        tag = {"ViT-L-14": "laion2b_s32b_b82k", "ViT-H-14": "laion2b_s32b_b79k"}[spec.architecture]
        assert find_backbone(f"open_clip:{spec.architecture}@{tag}").hub == spec.hub


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("dinov2-small", 1),
        ("dinov3-small", 5),
        ("tiny", 1),
        ("timm:vit_tiny_patch16_224", 1),
        ("timm:vit_small_patch14_reg4_dinov2", 5),
    ],
)
def test_tokens_of_a_non_square_input_equal_timms_own(name: str, prefix: int) -> None:
    backbone = random_backbone(find_backbone(name), 0).eval()
    images = torch.randn(2, 3, 3 * backbone.patch, 5 * backbone.patch)
    with torch.inference_mode():
        features = backbone(images)
        sequence = backbone.model.forward_features(images)
    assert features.tokens.shape == (2, backbone.dim, 3, 5)
    assert sequence.shape[1] == prefix + 15
    for row in range(3):
        for column in range(5):
            expected = sequence[:, prefix + row * 5 + column]
            torch.testing.assert_close(
                features.tokens[:, :, row, column], expected, atol=1e-5, rtol=0
            )
    torch.testing.assert_close(features.cls, sequence[:, 0], atol=1e-5, rtol=0)


def test_a_token_depends_on_its_patch_first() -> None:
    """The grid is laid out as the image is: rows down, columns across."""
    backbone = random_backbone(TINY, 0).eval()
    images = torch.zeros(1, 3, 42, 70)
    changed = images.clone()
    changed[:, :, 14:28, 56:70] = 3
    with torch.inference_mode():
        difference = (backbone(changed).tokens - backbone(images).tokens).norm(dim=1)[0]
    assert divmod(int(difference.argmax()), 5) == (1, 4)


def test_seed_decides_the_weights() -> None:
    first, again, other = (random_backbone(TINY, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


SMALL_CLIP = "open_clip:ViT-S-32"


def clip_of_size(rows: int, columns: int, source: torch.nn.Module) -> torch.nn.Module:
    """OpenCLIP's own model built at another size, its position embeddings resampled by OpenCLIP."""
    config = copy.deepcopy(open_clip.get_model_config("ViT-S-32"))
    config["vision_cfg"]["image_size"] = (rows, columns)
    model = open_clip.CLIP(**config, output_dict=False)
    model.visual.output_tokens = True
    state = {f"visual.{key}": value for key, value in source.state_dict().items()}
    open_clip.model.resize_pos_embed(state, model)
    model.visual.load_state_dict({key.removeprefix("visual."): v for key, v in state.items()})
    return model.eval()


@pytest.mark.parametrize("shape", [(96, 160), (224, 224), (320, 288)])
def test_openclip_tokens_equal_a_model_built_at_that_size(shape: tuple[int, int]) -> None:
    backbone = random_backbone(find_backbone(SMALL_CLIP), 0).eval()
    reference = clip_of_size(*shape, backbone.model)
    images = torch.randn(2, 3, *shape)
    with torch.no_grad():
        features = backbone(images)
        pooled, tokens = reference.visual(images)
    expected = tokens.transpose(1, 2).unflatten(2, (shape[0] // 32, shape[1] // 32))
    torch.testing.assert_close(features.tokens, expected, atol=1e-5, rtol=0)
    # OpenCLIP projects its class token; ours is the one before.
    torch.testing.assert_close(features.cls @ backbone.model.proj, pooled, atol=1e-5, rtol=0)


def test_openclip_weights_load_from_a_whole_model_and_from_a_tower() -> None:
    source = random_backbone(find_backbone(SMALL_CLIP), 2)
    tower = source.model.state_dict()
    whole = {f"visual.{key}": value for key, value in tower.items()}
    whole["text_projection"] = torch.zeros(3)
    for state in (tower, whole):
        target = random_backbone(find_backbone(SMALL_CLIP), 0)
        target.load(state, "open_clip_model.safetensors")
        assert all(torch.equal(target.model.state_dict()[key], tower[key]) for key in tower)


def test_a_tower_alone_has_no_text_beside_it() -> None:
    """Blocks of a tower are called as those of texts are: one more is not left out in silence."""
    tower = random_backbone(find_backbone(SMALL_CLIP), 2).model.state_dict()
    more = {
        key.replace("resblocks.3.", "resblocks.12."): value
        for key, value in tower.items()
        if "resblocks.3." in key
    }
    with pytest.raises(WeightsError, match=r"resblocks\.12\..* is not part of the backbone"):
        build_backbone(find_backbone(SMALL_CLIP)).load({**tower, **more}, "tower")
    whole = {f"visual.{key}": value for key, value in tower.items()}
    loaded = build_backbone(find_backbone(SMALL_CLIP)).load({**whole, **more}, "whole")
    assert loaded.spare == dict.fromkeys(more, "text tower")
    with pytest.raises(WeightsError, match=r"teacher\.a is not part of the backbone"):
        build_backbone(find_backbone(SMALL_CLIP)).load(
            {**whole, "teacher.a": tower["proj"]}, "more"
        )


def test_what_a_converter_makes_of_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    state = random_backbone(TINY, 0).model.state_dict()
    monkeypatch.setattr(
        "timm.models.vision_transformer.checkpoint_filter_fn",
        lambda given, _: {**given, "cls_token": torch.zeros(1, 1, 64)},
    )
    with pytest.raises(WeightsError, match="cls_token is missing; cls_token is not part of"):
        build_backbone(TINY).load(state, "these")


def official_dinov3(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A timm state under the names of the official DINOv3 release."""
    names = {
        "reg_token": "storage_tokens",
        "gamma_1": "ls1.gamma",
        "gamma_2": "ls2.gamma",
    }
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[key] = value.clone()
    state["mask_token"] = torch.zeros(1, model.embed_dim)
    state["rope_embed.periods"] = torch.zeros(16)
    for number in range(len(model.blocks)):
        # The release carries a bias whose key part is masked out, that is, zero.
        dim = model.embed_dim
        state[f"blocks.{number}.attn.qkv.bias"] = torch.zeros(3 * dim)
        state[f"blocks.{number}.attn.qkv.bias_mask"] = torch.zeros(3 * dim)
    return state


def test_the_official_dinov3_format_loads() -> None:
    spec = find_backbone("dinov3-small")
    source = random_backbone(spec, 3)
    target = build_backbone(spec)
    target.load(official_dinov3(source.model), "dinov3_vits16_pretrain.pth")
    ours, theirs = target.model.state_dict(), source.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_biases_of_the_official_dinov3_are_zero_or_refused() -> None:
    spec = find_backbone("dinov3-small")
    state = official_dinov3(random_backbone(spec, 3).model)
    biases = {name: tensor + 1 for name, tensor in state.items() if name.endswith("qkv.bias")}
    loaded = build_backbone(spec).load({**state, **biases}, "masked")
    assert loaded.spare.keys() >= biases.keys()
    masks = {f"{name}_mask": torch.ones_like(bias) for name, bias in biases.items()}
    with pytest.raises(
        WeightsError, match=r"blocks\.0\.attn\.qkv\.bias is not part of the backbone"
    ):
        build_backbone(spec).load({**state, **biases, **masks}, "unmasked")
    # timm's other form has them, but for those of the keys.
    spec = find_backbone("timm:vit_small_patch16_dinov3_qkvb")
    with pytest.raises(WeightsError, match=r"q_bias is missing; blocks\.0\.attn"):
        build_backbone(spec).load({**state, **biases, **masks}, "unmasked")
    for mask in masks.values():
        mask[len(mask) // 3 : 2 * len(mask) // 3] = 0
    backbone = build_backbone(spec)
    backbone.load({**state, **biases, **masks}, "keys masked")
    assert backbone.model.blocks[0].attn.v_bias.eq(1).all()


def official_dinov2(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A timm state under the names of the official DINOv2 release."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["mask_token"] = torch.zeros(1, model.embed_dim)
    return state


def test_the_official_format_loads() -> None:
    spec = find_backbone("dinov2-small")
    source = random_backbone(spec, 3)
    target = build_backbone(spec)
    target.load(official_dinov2(source.model), "dinov2_vits14_pretrain.pth")
    images = torch.randn(1, 3, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(
            target.eval()(images).tokens, source.eval()(images).tokens, atol=1e-6, rtol=0
        )


def test_weights_that_do_not_fit_name_the_first_three_keys() -> None:
    state = random_backbone(TINY, 0).model.state_dict()
    del state["cls_token"]
    state["norm.weight"] = state["norm.weight"][:5]
    state["extra.a"] = state["extra.b"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        build_backbone(TINY).load(state, "file.pth")
    message = str(caught.value)
    assert "cls_token is missing" in message
    assert "norm.weight has shape (5,) instead of (64,)" in message
    assert "extra.a is not part of the backbone" in message
    assert "(and 1 more)" in message
    assert "extra.b" not in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:vit_small_patch14_dinov", "did you mean timm:vit_small_patch14_dinov2?"),
        ("timm:resnet18", "is not a vision transformer"),
        ("open_clip:ViT-L-15", "did you mean open_clip:ViT-L-1"),
        ("timm:\0", r"timm has no model '\x00'; expected a name that timm.list_models() gives."),
        ("open_clip:", "open_clip has no model ''; expected a name that open_clip.list_models()"),
        ("open_clip:RN50", "is not a plain vision transformer"),
        ("open_clip:ViT-B-32@openai", "use open_clip:ViT-B-32-quickgelu@openai"),
        ("open_clip:ViT-B-32@nope", "no weights 'nope' of ViT-B-32"),
    ],
)
def test_what_is_no_vision_transformer(name: str, said: str) -> None:
    with pytest.raises(BackboneError, match=re.escape(said)):
        find_backbone(name)


def test_a_typing_mistake_is_answered() -> None:
    with pytest.raises(BackboneError, match=r"did you mean dinov2-small\?"):
        find_backbone("dinov2-smal")
    assert isinstance(find_backbone("tiny"), BackboneSpec)
