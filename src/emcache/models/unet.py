"""A U-Net that is trained from scratch: what a lab would use without a foundation model."""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from torch import Tensor, nn
from typing_extensions import override

from emcache.models.heads import Head

_WIDTHS = (32, 64, 128, 256, 512)
_STRIDE = 1 << (len(_WIDTHS) - 1)
SMALLEST = 2 * _STRIDE
"""Edge in pixels of the smallest slice; instance norm needs more than one value a channel."""

_OVERLAP = 0.5
_WINDOWS_AT_ONCE = 4


class UNetHead(Head):
    """MONAI's residual 2D U-Net (Kerfoot et al. 2019) on slices in place of tokens.

    Five levels of 32 to 512 channels with two residual units each and instance norm; 6,495,321
    parameters for two classes. It is trained on crops. In inference mode it goes over a slice of
    any size in windows as large as a crop, which overlap by half and are blended with Gaussian
    weights (:func:`monai.inferers.sliding_window_inference`).

    Args:
        classes: Outputs.
        crop: Edge of crops and windows in pixels.
        tta: Whether the logits are the mean over the eight flips and quarter turns of a slice.
    """

    reads = "grey"

    def __init__(self, classes: int = 2, crop: int = 256, *, tta: bool = False) -> None:
        super().__init__()
        self.network = UNet(2, 1, classes, _WIDTHS, (2,) * (len(_WIDTHS) - 1), num_res_units=2)
        self._crop = crop
        self._tta = tta

    @override
    def logits(
        self, tokens: Float[Tensor, "batch 1 row col"]
    ) -> Float[Tensor, "batch classes row col"]:
        """Logits of every pixel, of crops or of whole slices of any size."""
        if self.training:
            rows, columns = tokens.shape[-2:]
            # Whole slices, where there are no crops, need not be such that it can halve them.
            missing = (0, -columns % _STRIDE, 0, -rows % _STRIDE)
            padded = nn.functional.pad(tokens, missing, mode="reflect") if any(missing) else tokens
            logits: Tensor = self.network(padded)
            return logits[..., :rows, :columns]
        if not self._tta:
            return self._in_windows(tokens)
        turned = [
            _turn_back(self._in_windows(_turn(tokens, turns, flipped)), turns, flipped)
            for turns, flipped in product(range(4), (False, True))
        ]
        return torch.stack(turned).mean(dim=0)

    def _in_windows(
        self, slices: Float[Tensor, "batch 1 row col"]
    ) -> Float[Tensor, "batch classes row col"]:
        edge = window_size(min(self._crop, *slices.shape[-2:]))
        found = sliding_window_inference(
            slices, (edge, edge), _WINDOWS_AT_ONCE, self.network, overlap=_OVERLAP, mode="gaussian"
        )
        assert isinstance(found, Tensor)  # noqa: S101 - the network has one output
        return found


def window_size(crop: int) -> int:
    """An edge in pixels, floored to one that the network halves four times without a rest."""
    return max(SMALLEST, crop // _STRIDE * _STRIDE)


def build_unet(classes: int, seed: int, crop: int, *, tta: bool) -> UNetHead:
    """An untrained U-Net, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNetHead(classes, crop, tta=tta)


def _turn(
    values: Float[Tensor, "batch channel row col"], turns: int, flipped: bool
) -> Float[Tensor, "batch channel r c"]:
    turned = torch.rot90(values, turns, dims=(2, 3))
    return turned.flip(3) if flipped else turned


def _turn_back(
    values: Float[Tensor, "batch channel r c"], turns: int, flipped: bool
) -> Float[Tensor, "batch channel row col"]:
    return torch.rot90(values.flip(3) if flipped else values, -turns, dims=(2, 3))
