"""Random crops, flips, rotations and changes of grey, for networks that are trained on slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import pi

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandRotated,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
)
from torch import Tensor

from emcache.models.unet import window_size
from emcache.training.batches import Batch

_LARGEST_SEED = 2**32 - 1
_BOTH = ("image", "mask")
_EIGHTH = pi / 4
"""Of a turn, in radians; with quarter turns that makes any angle."""


class Augmentation:
    """MONAI's random transforms on the slices of a batch, each slice with its own draws.

    Args:
        crop: Edge in pixels of what is cut out of every slice; slices that are smaller give their
            shorter edge.
        changes: Whether crops are also flipped, rotated by any angle (borders reflected), scaled
            and shifted in grey by up to a fifth of a standard deviation, and, one in five, made
            noisy, smooth or of another gamma.
    """

    def __init__(self, crop: int, *, changes: bool) -> None:
        self._crop = crop
        self._changes = changes

    def batches(
        self, steps: Iterator[Sequence[Batch]], generator: torch.Generator
    ) -> Iterator[list[Batch]]:
        """Augmented batches of each step.

        Args:
            steps: As :class:`emcache.training.batches.Examples` gives them.
            generator: Says what is drawn; it is left further on.
        """
        for batches in steps:
            yield [self._batch(batch, generator) for batch in batches]

    def _batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        edge = window_size(min(self._crop, *batch.masks.shape[-2:]))
        transform = Compose(_transforms(edge, changes=self._changes))
        images: list[Tensor] = []
        masks: list[Tensor] = []
        for image, mask in zip(batch.inputs, batch.masks, strict=True):
            seed = int(torch.randint(_LARGEST_SEED, (), generator=generator))
            transform.set_random_state(seed)
            # Transforms change what they are given.
            made = transform({"image": image.clone(), "mask": mask[None].float()})
            images.append(torch.as_tensor(made["image"]))
            masks.append(torch.as_tensor(made["mask"])[0].to(mask.dtype))
        return batch._replace(inputs=torch.stack(images), masks=torch.stack(masks))


def _transforms(edge: int, *, changes: bool) -> list[object]:
    crop = RandSpatialCropd(_BOTH, (edge, edge), random_size=False)
    if not changes:
        return [crop]
    return [
        crop,
        RandFlipd(_BOTH, prob=0.5, spatial_axis=0),
        RandFlipd(_BOTH, prob=0.5, spatial_axis=1),
        RandRotate90d(_BOTH, prob=0.5),
        RandRotated(
            _BOTH,
            range_x=_EIGHTH,
            prob=0.5,
            mode=("bilinear", "nearest"),
            padding_mode="reflection",
        ),
        RandScaleIntensityd("image", factors=0.2, prob=0.5),
        RandShiftIntensityd("image", offsets=0.2, prob=0.5),
        RandGaussianNoised("image", std=0.1, prob=0.2),
        RandGaussianSmoothd("image", (0.5, 1.0), (0.5, 1.0), prob=0.2),
        RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=0.2),
    ]
