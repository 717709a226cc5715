import pytest
import torch
from torch import nn

from emcache.heads import DeconvHead, LinearHead, build_head, count_parameters


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


def test_linear_head_is_one_product() -> None:
    head = LinearHead(8)
    assert count_parameters(head) == 2 * 8 + 2
    assert head(torch.randn(1, 8, 2, 3), (28, 42)).shape == (1, 2, 28, 42)


def test_seed_decides_the_weights_and_nothing_else_does() -> None:
    first = build_head("deconv", 16, 1).state_dict()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = build_head("deconv", 16, 1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    other = build_head("deconv", 16, 2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])
