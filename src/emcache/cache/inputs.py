"""What a backbone sees of a slice's pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from emcache.data.resize import IMAGENET_MEAN, IMAGENET_STD


def normalise(pixels: UInt8[Tensor, "batch row col"]) -> Float32[Tensor, "batch 3 row col"]:
    """Grey 0..255 to three channels with ImageNet's mean and standard deviation removed."""
    mean, std = (
        torch.tensor(values, device=pixels.device)[None, :, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (pixels[:, None].float() / 255 - mean) / std
