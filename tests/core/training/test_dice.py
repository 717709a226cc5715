import pytest
import torch
from monai.losses import DiceLoss

from emcache.training.dice import dice_loss


def both(
    logits: torch.Tensor, masks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Our loss and MONAI's, each with its gradient."""
    theirs = DiceLoss(softmax=True, to_onehot_y=True, include_background=True)
    found = []
    for loss in (dice_loss, lambda x, y: theirs(x, y[:, None].long())):
        given = logits.clone().requires_grad_()
        value = loss(given, masks)
        value.backward()
        found += [value.detach(), given.grad]
    return tuple(found)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_it_is_monais(classes: int, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2, classes, 40, 56, generator=generator)
    drawn = torch.randint(1, classes, (2, 40, 56), generator=generator)
    masks = (drawn * (torch.rand(2, 40, 56, generator=generator) < share)).to(torch.uint8)
    ours, gradient, theirs, expected = both(logits, masks)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-9)


def test_ignored_pixels_are_as_if_they_were_not_there() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 2, 8, 8, generator=generator)
    masks = torch.randint(0, 2, (1, 8, 8), generator=generator).to(torch.uint8)
    masks[:, :, 5:] = 255
    given = logits.clone().requires_grad_()
    loss = dice_loss(given, masks, ignores=True)
    loss.backward()
    torch.testing.assert_close(loss, dice_loss(logits[..., :5], masks[..., :5]))
    assert not given.grad[..., 5:].any()
    assert given.grad[..., :5].all()
