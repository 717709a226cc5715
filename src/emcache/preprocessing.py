"""From a slice to what a backbone sees, and from its mask to what a head learns.

Sizes follow the study (arXiv 2602.08505): the longest edge is scaled to a target, the aspect ratio
kept, each side floored to a multiple of the patch; images bicubic, masks nearest; grey replicated
to three channels and normalised with ImageNet's mean and standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from emcache.errors import ImageError, UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Everything about preprocessing that could change a token."""

    longest_edge: int
    """Target of the longest edge in pixels, before flooring to whole patches."""
    patch: int
    """Side of a patch in pixels."""

    def __post_init__(self) -> None:
        if self.longest_edge < self.patch:
            raise UsageError(
                f"--longest-edge {self.longest_edge} is below one patch of {self.patch} px; the "
                f"nearest valid size is {self.patch}.",
                subject=self.longest_edge,
            )

    def identity(self) -> dict[str, Any]:
        """Canonical JSON value that enters a feature set's fingerprint."""
        return {
            "resize": "longest-edge-floor-to-patch",
            "longest_edge": self.longest_edge,
            "patch": self.patch,
            "image_filter": "pillow-bicubic",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
        }

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns in pixels that a slice is resized to.

        Raises:
            ImageError: The slice is so narrow that not one patch would fit.
        """
        scale = self.longest_edge / max(height, width)
        rows, columns = (int(side * scale + 1e-9) // self.patch for side in (height, width))
        if not rows or not columns:
            raise ImageError(
                f"a slice of {height} x {width} pixels has a side below one patch of {self.patch} "
                f"px at --longest-edge {self.longest_edge}; choose a larger one.",
                subject=(height, width),
            )
        return rows * self.patch, columns * self.patch

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patch tokens."""
        rows, columns = self.size_of(height, width)
        return rows // self.patch, columns // self.patch

    def resize_image(
        self, pixels: UInt8[np.ndarray, "row col"]
    ) -> UInt8[np.ndarray, "new_row new_col"]:
        """Resize a slice, bicubic with antialiasing."""
        return _resize(pixels, self.size_of(*pixels.shape), Image.Resampling.BICUBIC)

    def resize_mask(
        self, pixels: UInt8[np.ndarray, "row col"]
    ) -> UInt8[np.ndarray, "new_row new_col"]:
        """Resize a decoded mask, nearest neighbour."""
        return _resize(pixels, self.size_of(*pixels.shape), Image.Resampling.NEAREST)


def normalise(pixels: UInt8[Tensor, "batch row col"]) -> Float32[Tensor, "batch 3 row col"]:
    """Grey 0..255 to three channels with ImageNet's mean and standard deviation removed."""
    mean, std = (
        torch.tensor(values, device=pixels.device)[None, :, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (pixels[:, None].float() / 255 - mean) / std


def occupancy(
    foreground: UInt8[np.ndarray, "row col"], patch: int
) -> Float32[np.ndarray, "token_row token_col"]:
    """Share of each patch's pixels that are foreground (non-zero)."""
    rows, columns = (side // patch for side in foreground.shape)
    patches = (foreground != 0).reshape(rows, patch, columns, patch)
    share: Float32[np.ndarray, "token_row token_col"] = patches.mean(axis=(1, 3), dtype=np.float32)
    return share


def _resize(
    pixels: UInt8[np.ndarray, "row col"], size: tuple[int, int], resampling: Image.Resampling
) -> UInt8[np.ndarray, "new_row new_col"]:
    rows, columns = size
    if pixels.shape == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize((columns, rows), resampling))
