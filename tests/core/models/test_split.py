import pytest
import torch

from emcache.errors import BackboneError
from emcache.models.backbones.base import BackboneModule, random_backbone
from emcache.models.backbones.registry import find_backbone
from emcache.models.split import check_split

# No positions beside the sequence, rotary ones with registers, and another library.
FAMILIES = ["tiny", "timm:vit_small_patch16_dinov3", "open_clip:ViT-S-32"]


@pytest.fixture(params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> BackboneModule:
    return random_backbone(find_backbone(request.param), 0).eval()


def test_later_blocks_go_on_from_the_output_of_an_earlier_one(backbone: BackboneModule) -> None:
    images = torch.randn(2, 3, 2 * backbone.patch, 3 * backbone.patch)
    after = len(list(backbone.blocks.children())) - 1
    with torch.inference_mode():
        plain = backbone(images)
        (raw,) = backbone.layers(images, [f"raw{after}"])
        sequence = torch.cat([raw.prefix, raw.tokens.flatten(2).transpose(1, 2)], dim=1)
        again = backbone.go_on(sequence, after, (2, 3))
    assert plain.prefix is None
    torch.testing.assert_close(raw.prefix[:, 0], raw.cls)
    torch.testing.assert_close(again.tokens, plain.tokens, rtol=0, atol=2e-5)
    torch.testing.assert_close(again.cls, plain.cls, rtol=0, atol=2e-5)
    check_split(backbone, after)


def test_a_raw_layer_is_not_normalised() -> None:
    backbone = random_backbone(find_backbone("tiny"), 0).eval()
    with torch.inference_mode():
        raw, normalised = backbone.layers(torch.randn(1, 3, 28, 28), ["raw1", "1"])
        expected = backbone.final_norm(raw.tokens.permute(0, 2, 3, 1))
    torch.testing.assert_close(normalised.tokens.permute(0, 2, 3, 1), expected)
    assert not torch.allclose(raw.tokens, normalised.tokens, atol=0.1)


def test_a_backbone_whose_blocks_need_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = random_backbone(find_backbone("timm:vit_small_patch16_dinov3"), 0).eval()
    for block in backbone.blocks.children():
        # Untrained, attention is the same everywhere and adds next to nothing.
        block.attn.qkv.weight.data *= 20
        block.gamma_1.data.fill_(1)
    # As of a model whose blocks take something that is not known here.
    monkeypatch.setattr(type(backbone), "block_options", BackboneModule.block_options)
    with pytest.raises(BackboneError, match=r"behind block 6 need more.*--on-the-fly"):
        check_split(backbone, 6)
