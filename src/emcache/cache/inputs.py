"""What a head and a backbone get of a slice: image and mask at training size, normalised."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from emcache.cache.encoding import Encoding
from emcache.data.classes import ClassRule
from emcache.data.dataset import Slice
from emcache.data.greys import GreyRule
from emcache.data.images import pixel_sha256, read_image, read_mask
from emcache.data.resize import IMAGENET_MEAN, IMAGENET_STD, resize_image, resize_mask
from emcache.errors import StoreError


def training_image(
    item: Slice, size: tuple[int, int], greys: GreyRule
) -> UInt8[np.ndarray, "row col"]:
    """The slice at training size (rows, columns), 8-bit grey, under a rule for greys.

    Raises:
        StoreError: The file changed since the slice was described.
        ImageError: The file cannot be read.
    """
    pixels = read_image(item.image, item.grey_window)
    if pixel_sha256(pixels) != item.pixel_sha256:
        raise StoreError(
            f"slice {item.image} changed while it was in use; run the command again.",
            subject=item.image,
        )
    return resize_image(greys.apply(pixels), size)


def training_mask(
    item: Slice, classes: ClassRule, size: tuple[int, int]
) -> UInt8[np.ndarray, "row col"]:
    """The mask at training size, as labels: see :meth:`emcache.data.classes.ClassRule.labels`.

    Raises:
        StoreError: The file changed since the slice was described.
        ImageError: The file cannot be read.
    """
    assert item.mask is not None  # noqa: S101 - callers ask for labelled slices only
    pixels = read_mask(item.mask)
    if pixel_sha256(pixels) != item.mask_sha256:
        raise StoreError(
            f"mask {item.mask} changed while it was in use; run the command again.",
            subject=item.mask,
        )
    return resize_mask(classes.labels(pixels), size)


def normalise(pixels: UInt8[Tensor, "batch row col"]) -> Float32[Tensor, "batch 3 row col"]:
    """Grey 0..255 to three channels with ImageNet's mean and standard deviation removed."""
    mean, std = (
        torch.tensor(values, device=pixels.device)[None, :, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (pixels[:, None].float() / 255 - mean) / std


def standardise(pixels: UInt8[Tensor, "batch row col"]) -> Float32[Tensor, "batch 1 row col"]:
    """Grey 0..255 to one channel, of mean 0 and deviation 1 in every slice.

    A slice of one grey becomes 0.
    """
    greys = pixels[:, None].float()
    deviation, mean = torch.std_mean(greys, dim=(2, 3), keepdim=True, correction=0)
    return (greys - mean) / deviation.clamp(min=1)


def as_stored(
    tokens: Float32[Tensor, "batch channel row col"], encoding: Encoding
) -> Float[Tensor, "batch channel row col"]:
    """What a feature set would give of the tokens of a layer, which it has stored."""
    if encoding.is_plain:
        return tokens.to(getattr(torch, encoding.dtype))
    grids = encoding.round_trip(tokens.permute(0, 2, 3, 1).cpu().numpy())
    return torch.from_numpy(grids).to(tokens.device).permute(0, 3, 1, 2)
