"""The Dice loss of the study, as MONAI's ``DiceLoss`` computes it.

It is written out here because importing MONAI takes twice as long as importing PyTorch, and because
no one-hot masks are made.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from emcache.data.classes import IGNORED

_SMOOTH = 1e-5


def dice_loss(
    logits: Float[Tensor, "batch classes height width"],
    masks: UInt8[Tensor, "batch height width"],
    *,
    ignores: bool = False,
) -> Float[Tensor, ""]:
    """Mean over slices and classes of 1 - (2 overlap + s) / (predicted + true + s), s = 1e-5.

    Overlap is the sum of a class's probabilities over its pixels; background is a class (Milletari
    et al. 2016, V-Net, without squares in the denominator).

    Args:
        logits: In float32.
        masks: Labels: 0 background, 1 and up the classes.
        ignores: Whether there are pixels of 255, which are in no sum and have no gradient.
    """
    probabilities = logits.softmax(dim=1)
    if ignores:
        probabilities = probabilities * (masks != IGNORED)[:, None]
    losses = []
    for label, predicted in enumerate(probabilities.unbind(dim=1)):
        true = masks == label
        overlap = (predicted * true).sum(dim=(1, 2))
        both = predicted.sum(dim=(1, 2)) + true.sum(dim=(1, 2))
        losses.append(1 - (2 * overlap + _SMOOTH) / (both + _SMOOTH))
    return torch.stack(losses).mean()
