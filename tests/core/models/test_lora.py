from pathlib import Path

import pytest
import torch
from peft import PeftModel

from emcache.errors import AdapterError
from emcache.models.backbones.base import BackboneModule, random_backbone
from emcache.models.backbones.registry import TINY, find_backbone
from emcache.models.heads import Segmenter, build_head
from emcache.models.lora import attach_adapter, load_adapter

TARGETS = ["attn.qkv", "attn.proj"]
# One of each family: DINOv2's blocks, DINOv3's with rotary positions, OpenCLIP's.
FAMILIES = ["tiny", "timm:vit_small_patch16_dinov3", "open_clip:ViT-S-32"]


def backbone_of(name: str) -> BackboneModule:
    return random_backbone(find_backbone(name), 0).eval()


def images_for(backbone: BackboneModule) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 3 * backbone.patch, 2 * backbone.patch, generator=generator)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_starts_at_zero_and_has_six_r_d_parameters_a_block(name: str) -> None:
    backbone = backbone_of(name)
    images = images_for(backbone)
    with torch.no_grad():
        before = backbone(images).tokens
    adapter = attach_adapter(backbone, 16, 32.0, TARGETS, seed=0)
    with torch.no_grad():
        after = backbone(images).tokens
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    blocks = len(list(backbone.blocks.children()))
    assert adapter.parameters == 6 * 16 * backbone.dim * blocks
    assert len(adapter.modules) == 2 * blocks
    assert all(name.endswith(("attn.qkv", "attn.proj")) for name in adapter.modules)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_adapter_learns_and_peft_itself_loads_it(name: str, tmp_path: Path) -> None:
    backbone = backbone_of(name)
    adapter = attach_adapter(backbone, 4, 8.0, TARGETS, seed=0)
    images = images_for(backbone)
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        backbone(images).tokens.square().mean().backward()
        optimizer.step()
    # After two steps every half of every pair has moved: none is dead.
    assert all(p.grad.abs().max() > 0 for p in backbone.parameters() if p.requires_grad)
    adapter.save(tmp_path / "adapter")
    with torch.no_grad():
        expected = backbone(images).tokens

    theirs = backbone_of(name)
    theirs.make_adaptable()
    peft_model = PeftModel.from_pretrained(theirs.model, str(tmp_path / "adapter"))
    assert peft_model.peft_config["default"].r == 4
    ours = backbone_of(name)
    load_adapter(ours, tmp_path / "adapter")
    for loaded in (theirs.eval(), ours.eval()):
        with torch.no_grad():
            torch.testing.assert_close(loaded(images).tokens, expected, atol=1e-6, rtol=0)


def test_stock_timm_and_peft_load_it_without_emcache(tmp_path: Path) -> None:
    import timm

    spec = find_backbone("timm:vit_tiny_patch16_224")
    attach_adapter(random_backbone(spec, 0), 4, 8.0, TARGETS, seed=0).save(tmp_path)
    model = timm.create_model(spec.architecture, num_classes=0)
    assert len(PeftModel.from_pretrained(model, str(tmp_path)).active_adapters) == 1


def test_parts_and_checkpoints_change_nothing() -> None:
    """The gradient of a batch in parts, or computed twice, is that of the whole."""
    gradients = []
    for parts, checkpointed in ((1, False), (2, False), (1, True), (3, True)):
        backbone = backbone_of("tiny")
        attach_adapter(backbone, 4, 8.0, TARGETS, seed=0)
        with torch.no_grad():
            for name, parameter in backbone.named_parameters():
                if "lora_B" in name:
                    parameter += 0.01
        if checkpointed:
            backbone.checkpoint_activations()
        model = Segmenter(backbone, build_head("deconv", 64, 0), parts).train()
        images = torch.randn(3, 3, 28, 42, generator=torch.Generator().manual_seed(2))
        model(images, (28, 42)).square().mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
        assert all(gradient is not None for gradient in gradients[-1].values())
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_part_at_a_time_goes_through_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of("tiny")
    attach_adapter(backbone, 4, 8.0, TARGETS, seed=0)
    seen = []
    backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model = Segmenter(backbone, build_head("linear", 64, 0), parts=2).train()
    model(torch.randn(2, 3, 28, 28), (28, 28)).sum().backward()
    assert seen == [1, 1, 1, 1], "each part forward, and again for its gradient"


def test_a_target_that_matches_nothing_says_what_there_is() -> None:
    with pytest.raises(AdapterError, match=r"'attn.k'; its blocks have attn.qkv, attn.proj, mlp"):
        attach_adapter(backbone_of("tiny"), 4, 8.0, ["attn.qkv", "attn.k"], seed=0)


def test_an_adapter_that_could_never_learn_is_refused() -> None:
    # This model reads the weight of its qkv itself and never calls the layer.
    with pytest.raises(AdapterError, match=r"never calls its layer blocks.0.attn.qkv \(12 of 24"):
        attach_adapter(backbone_of("timm:eva02_tiny_patch14_224"), 4, 8.0, TARGETS, seed=0)


def test_an_adapter_for_another_backbone(tmp_path: Path) -> None:
    attach_adapter(random_backbone(TINY, 0), 4, 8.0, TARGETS, seed=0).save(tmp_path)
    with pytest.raises(
        AdapterError, match=r"for another backbone than timm:vit_tiny_patch16_224: "
    ):
        load_adapter(backbone_of("timm:vit_tiny_patch16_224"), tmp_path)
    with pytest.raises(AdapterError, match="adapts layers that are not there"):
        load_adapter(backbone_of("open_clip:ViT-S-32"), tmp_path)


@pytest.mark.parametrize("damage", ["absent", "no config", "cut"])
def test_what_is_no_adapter(damage: str, tmp_path: Path) -> None:
    if damage != "absent":
        attach_adapter(random_backbone(TINY, 0), 4, 8.0, TARGETS, seed=0).save(tmp_path)
    if damage == "no config":
        (tmp_path / "adapter_config.json").write_text("[]")
    if damage == "cut":
        (tmp_path / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(AdapterError, match="holds no LoRA adapter"):
        load_adapter(random_backbone(TINY, 0), tmp_path)


def test_the_last_blocks_alone() -> None:
    backbone = backbone_of("tiny")
    adapter = attach_adapter(backbone, 4, 8.0, TARGETS, 0, last_blocks=1)
    assert adapter.modules == ("blocks.1.attn.qkv", "blocks.1.attn.proj")
    # No activation of the blocks before is kept for a gradient.
    needed: list[bool] = []
    backbone.model.blocks[0].register_forward_hook(
        lambda *given: needed.append(given[2].requires_grad)
    )
    tokens = backbone(torch.randn(1, 3, 28, 28)).tokens
    assert tokens.requires_grad
    assert needed == [False]
    with pytest.raises(AdapterError, match="has 2 blocks, and the last 3 were to be adapted"):
        attach_adapter(backbone_of("tiny"), 4, 8.0, TARGETS, 0, last_blocks=3)
