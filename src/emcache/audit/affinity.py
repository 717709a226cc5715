"""How well every mask fits every image, in three channels and eight orientations.

A mask's outline should lie on strong gradients (or, for masks of membranes, on weak ones), on a
Laplacian of one sign, and its inside on tissue of one brightness. Images are scaled down to
:data:`EDGE` pixels and standardised, so that neither size nor contrast decides. What is computed of
a slice waits on disk, and images meet masks block by block: memory does not grow with the slices
beyond the scores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image
from scipy import ndimage

EDGE = 256
"""Longest edge of what is compared, in pixels."""

CHANNELS = ("gradient on the outline", "Laplacian on the outline", "brightness inside")
"""What of an image is looked at under a mask."""

AS_THEY_ARE = "as they are"
"""The orientation in which masks are declared."""

_Mask = Bool[np.ndarray, "row col"]

ORIENTATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    AS_THEY_ARE: lambda mask: mask,
    "flipped left-right": np.fliplr,
    "flipped up-down": np.flipud,
    "rotated by 180 degrees": lambda mask: np.rot90(mask, 2),
    "transposed": np.transpose,
    "rotated by 90 degrees": lambda mask: np.rot90(mask, 1),
    "rotated by 270 degrees": lambda mask: np.rot90(mask, 3),
    "transposed along the other diagonal": lambda mask: np.rot90(mask, 2).T,
}
"""What may have happened to all masks; the last four keep the shape of square masks only."""

_FINE, _COARSE = 1.0, 2.0
_BLOCK = 16
_SQUARE_ONLY = 4


def small_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns at which images and masks of this size are compared."""
    scale = min(1.0, EDGE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def image_channels(pixels: UInt8[np.ndarray, "height width"]) -> Float32[np.ndarray, "3 row col"]:
    """Gradient magnitude, Laplacian and smoothed brightness of a standardised image.

    Each has mean 0 and standard deviation 1; all are 0 where the image is constant.
    """
    small = _shrunk(pixels).astype(np.float32)
    small = _standardised(small)
    channels = (
        ndimage.gaussian_gradient_magnitude(small, _FINE),
        ndimage.gaussian_laplace(small, _FINE),
        ndimage.gaussian_filter(small, _COARSE),
    )
    return np.stack([_standardised(channel) for channel in channels])


def mask_at_size(foreground: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "row col"]:
    """A mask at the size of :func:`image_channels`: what is at least half foreground."""
    return _shrunk(foreground.astype(np.uint8) * 255) >= 128


def _shrunk(pixels: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "row col"]:
    rows, columns = small_size(*pixels.shape)
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BOX))


def _standardised(values: Float32[np.ndarray, "row col"]) -> Float32[np.ndarray, "row col"]:
    spread = values.std()
    if spread < 1e-6:
        return np.zeros_like(values)
    standardised: Float32[np.ndarray, "row col"] = (values - values.mean()) / spread
    return standardised


class Scratch:
    """Channels and masks of slices of one size, on disk; a context manager that removes them."""

    def __init__(self, height: int, width: int) -> None:
        self._shape = small_size(height, width)
        self._folder = tempfile.TemporaryDirectory(prefix="emcache-audit-")
        self._count = 0

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def add(
        self,
        pixels: UInt8[np.ndarray, "height width"],
        foreground: Bool[np.ndarray, "height width"],
    ) -> None:
        """Take the next slice."""
        with self._file("channels").open("ab") as stream:
            stream.write(image_channels(pixels).tobytes())
        with self._file("masks").open("ab") as stream:
            stream.write(mask_at_size(foreground).tobytes())
        self._count += 1

    @property
    def orientations(self) -> tuple[str, ...]:
        """Those that keep the masks' shape."""
        names = tuple(ORIENTATIONS)
        square = self._shape[0] == self._shape[1]
        return names if square else names[:-_SQUARE_ONLY]

    def affinity(self, orientation: str) -> Float64[np.ndarray, "channel image mask"]:
        """Mean of each channel of every image under every mask's outline or inside.

        Args:
            orientation: How to turn the masks first.
        """
        scores = np.zeros((len(CHANNELS), self._count, self._count))
        for masks, block in self._blocks("masks"):
            outlines, insides = self._outlines(block, orientation)
            for images, channels in self._blocks("channels"):
                for channel in range(len(CHANNELS)):
                    shapes = insides if channel == len(CHANNELS) - 1 else outlines
                    scores[channel, images, masks] = channels[:, channel] @ shapes.T
        return scores

    def _outlines(
        self, block: Bool[np.ndarray, "mask pixel"], orientation: str
    ) -> tuple[Float32[np.ndarray, "mask pixel"], Float32[np.ndarray, "mask pixel"]]:
        """Outline and inside of each mask, each with the sum 1 so that a product is a mean."""
        turned = [ORIENTATIONS[orientation](mask.reshape(self._shape)) for mask in block]
        outlines = [
            ndimage.binary_dilation(mask) ^ ndimage.binary_erosion(mask, border_value=1)
            for mask in turned
        ]
        return _weights(outlines), _weights(turned)

    def _blocks(self, name: str) -> Iterator[tuple[slice, np.ndarray]]:
        """The stored arrays, a few slices at a time, pixels flattened."""
        pixels = self._shape[0] * self._shape[1]
        kind, shape = (
            (np.dtype(np.float32), (len(CHANNELS), pixels))
            if name == "channels"
            else (np.dtype(np.bool_), (pixels,))
        )
        each = int(np.prod(shape))
        with self._file(name).open("rb") as stream:
            for start in range(0, self._count, _BLOCK):
                count = min(_BLOCK, self._count - start)
                values = np.fromfile(stream, kind, each * count).reshape(count, *shape)
                yield slice(start, start + count), values

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name


def _weights(shapes: list[np.ndarray]) -> Float32[np.ndarray, "mask pixel"]:
    flat = np.stack([shape.ravel() for shape in shapes]).astype(np.float32)
    weights: Float32[np.ndarray, "mask pixel"] = flat / np.maximum(flat.sum(1, keepdims=True), 1)
    return weights
