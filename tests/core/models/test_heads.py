import pytest
import torch
from torch import Tensor, nn

from emcache.models.heads import DeconvHead, LinearHead, build_head, count_parameters


@pytest.mark.parametrize("dim", [384, 768, 1024, 1280, 1536])
def test_parameters_are_the_papers(dim: int) -> None:
    assert count_parameters(DeconvHead(dim)) == 3_632_258 + 512 * dim


def reference_head(dim: int) -> nn.Sequential:
    """The head as arXiv 2602.08505 describes it, written out flat."""
    layers: list[nn.Module] = [nn.Conv2d(dim, 512, 1, bias=False), nn.BatchNorm2d(512), nn.GELU()]
    for before, after in [(512, 256), (256, 128), (128, 64), (64, 64)]:
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.GELU()]
        layers += [nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(64, 2, 1))


def test_computes_what_the_description_says() -> None:
    head, reference = DeconvHead(32).eval(), reference_head(32).eval()
    reference.load_state_dict(
        dict(zip(reference.state_dict(), head.state_dict().values(), strict=True))
    )
    tokens = torch.randn(2, 32, 3, 4)
    expected = nn.functional.interpolate(
        reference(tokens), size=(42, 56), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(head(tokens, (42, 56)), expected)


class BNHead(nn.Module):
    """The head of DINOv2's evaluation, written anew: batch norm, then a class for each token."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(dim)
        self.cls_seg = nn.Conv2d(dim, classes, kernel_size=1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.cls_seg(self.bn(tokens))


def real_looking(*shape: int, seed: int = 0) -> Tensor:
    """Tokens that are large and nearly parallel, as those of a pretrained backbone are."""
    generator = torch.Generator().manual_seed(seed)
    mean = 3 * torch.randn(shape[1], generator=generator)
    return mean[:, None, None] + 0.3 * torch.randn(shape, generator=generator)


def test_linear_head_is_that_of_dinov2s_evaluation() -> None:
    head, reference = LinearHead(8, 3), BNHead(8, 3)
    assert count_parameters(head) == count_parameters(reference) == 2 * 8 + 3 * 8 + 3
    assert count_parameters(LinearHead(8)) == 4 * 8 + 2
    names = dict(zip(reference.state_dict(), head.state_dict().values(), strict=True))
    reference.load_state_dict(names)
    for seed in range(30):
        # Training and inference alike; the running means agree once they have forgotten the start.
        tokens = real_looking(2, 8, 2, 3, seed=seed)
        torch.testing.assert_close(head.logits(tokens), reference(tokens))
    for name in ("running_mean", "running_var"):
        theirs = getattr(reference.bn, name)
        torch.testing.assert_close(getattr(head.norm, name), theirs, rtol=0.1, atol=0.1)
    reference.bn.load_state_dict(head.norm.state_dict())
    head.eval(), reference.eval()
    expected = nn.functional.interpolate(reference(tokens), size=(28, 42), mode="bilinear")
    torch.testing.assert_close(head(tokens, (28, 42)), expected)


def test_the_statistics_of_a_linear_head_are_right_from_the_first_steps() -> None:
    head = LinearHead(8)
    batches = [real_looking(2, 8, 4, 5, seed=0) + 0.1 * step for step in range(10)]
    for batch in batches:
        head.logits(batch)
    mean = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
    variance = torch.stack([batch.var(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
    torch.testing.assert_close(head.norm.running_mean, mean)
    torch.testing.assert_close(head.norm.running_var, variance)
    # From here on the usual average, and not in inference.
    more = real_looking(2, 8, 4, 5, seed=5)
    head.eval().logits(more)
    torch.testing.assert_close(head.norm.running_mean, mean)
    head.train().logits(more)
    average = mean + 0.1 * (more.mean(dim=(0, 2, 3)) - mean)
    torch.testing.assert_close(head.norm.running_mean, average)


def test_a_linear_head_normalises_in_float32_in_any_arithmetic() -> None:
    tokens = real_looking(2, 8, 4, 5).bfloat16()
    full, half = build_head("linear", 8, 0), build_head("linear", 8, 0)
    seen: list[Tensor] = []
    half.norm.register_forward_hook(lambda _module, _input, output: seen.append(output))
    full.logits(tokens.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert half.logits(tokens).dtype == torch.bfloat16
    assert seen[0].dtype == torch.float32
    assert torch.equal(full.norm.running_mean, half.norm.running_mean)
    assert torch.equal(full.norm.running_var, half.norm.running_var)


def test_seed_decides_the_weights_and_nothing_else_does() -> None:
    first = build_head("deconv", 16, 1).state_dict()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = build_head("deconv", 16, 1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    other = build_head("deconv", 16, 2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])
