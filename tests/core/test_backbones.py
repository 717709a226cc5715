import pytest
import timm
import torch

from emcache.backbones.registry import BACKBONES, TINY, BackboneSpec, find_backbone
from emcache.backbones.timm_vit import TimmBackbone, random_model
from emcache.errors import BackboneError, WeightsError


def test_known_backbones_are_what_timm_builds() -> None:
    for spec in BACKBONES.values():
        if spec == TINY:
            continue
        with torch.device("meta"):
            model = timm.create_model(spec.architecture, num_classes=0)
        assert model.embed_dim == spec.dim
        assert model.patch_embed.patch_size == (spec.patch, spec.patch)
        assert spec.hub == f"timm/{spec.architecture}.{model.pretrained_cfg['tag']}"


@pytest.mark.parametrize("name", ["dinov2-small", "tiny"])
def test_tokens_of_a_non_square_input_equal_timms_own(name: str) -> None:
    backbone = random_model(find_backbone(name), 0).eval()
    images = torch.randn(2, 3, 42, 70)
    with torch.inference_mode():
        features = backbone(images)
        sequence = backbone.model.forward_features(images)
    assert features.tokens.shape == (2, backbone.dim, 3, 5)
    for row in range(3):
        for column in range(5):
            expected = sequence[:, 1 + row * 5 + column]
            torch.testing.assert_close(
                features.tokens[:, :, row, column], expected, atol=1e-5, rtol=0
            )
    torch.testing.assert_close(features.cls, sequence[:, 0], atol=1e-5, rtol=0)


def test_a_token_depends_on_its_patch_first() -> None:
    """The grid is laid out as the image is: rows down, columns across."""
    backbone = random_model(TINY, 0).eval()
    images = torch.zeros(1, 3, 42, 70)
    changed = images.clone()
    changed[:, :, 14:28, 56:70] = 3
    with torch.inference_mode():
        difference = (backbone(changed).tokens - backbone(images).tokens).norm(dim=1)[0]
    assert divmod(int(difference.argmax()), 5) == (1, 4)


def test_seed_decides_the_weights() -> None:
    first, again, other = (random_model(TINY, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def official_dinov2(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A timm state under the names of the official DINOv2 release."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["mask_token"] = torch.zeros(1, model.embed_dim)
    return state


def test_the_official_format_loads() -> None:
    spec = find_backbone("dinov2-small")
    source = random_model(spec, 3)
    target = TimmBackbone(spec)
    target.load(official_dinov2(source.model), "dinov2_vits14_pretrain.pth")
    images = torch.randn(1, 3, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(
            target.eval()(images).tokens, source.eval()(images).tokens, atol=1e-6, rtol=0
        )


def test_weights_that_do_not_fit_name_the_first_three_keys() -> None:
    state = random_model(TINY, 0).model.state_dict()
    del state["cls_token"]
    state["norm.weight"] = state["norm.weight"][:5]
    state["extra.a"] = state["extra.b"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        TimmBackbone(TINY).load(state, "file.pth")
    message = str(caught.value)
    assert "cls_token is missing" in message
    assert "norm.weight has shape (5,) instead of (64,)" in message
    assert "extra.a is not part of the backbone" in message
    assert "(and 1 more)" in message
    assert "extra.b" not in message


def test_a_typing_mistake_is_answered() -> None:
    with pytest.raises(BackboneError, match=r"did you mean dinov2-small\?"):
        find_backbone("dinov2-smal")
    assert isinstance(find_backbone("tiny"), BackboneSpec)
