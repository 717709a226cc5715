"""Channels of images on disk and shapes of masks in memory, compared block by block.

Memory does not grow with the images: what is computed of an image waits in a temporary file. A
mask takes two bits a pixel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from emcache.auditing.pictures import (
    AS_THEY_ARE,
    CHANNELS,
    EDGE,
    Tiling,
    image_channels,
    mask_shapes,
)

_STEP = 1 / 1024
"""Channels are stored as whole multiples of this, which halves a file and is read fast."""
_MOST = np.iinfo(np.int16).max
_BLOCK_PIXELS = 1 << 22

Places = Sequence[int] | Int64[np.ndarray, " place"]

Pair = tuple[int, int, str]
"""An image, a mask, and how the mask is turned."""


class Scratch:
    """Slices of one size; a context manager that removes what it wrote.

    Args:
        height: Rows of the slices.
        width: Columns of the slices.
        edge: Longest edge of what is compared.
    """

    def __init__(self, height: int, width: int, edge: int = EDGE) -> None:
        self.tiling = Tiling(height, width, edge)
        self._edge = edge
        self._block = max(1, _BLOCK_PIXELS // self.tiling.pixels)
        self._turns = self.tiling.turns()
        self._folder = tempfile.TemporaryDirectory(prefix="emcache-audit-")
        self._channels = Path(self._folder.name) / "channels"
        self._shapes: list[UInt8[np.ndarray, "2 byte"]] = []
        self._sum = np.zeros((len(CHANNELS), self.tiling.pixels))

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
        """Take the next slice and the mask declared for it."""
        cut = self.tiling.cut
        channels = np.stack([cut(c) for c in image_channels(pixels, self._edge)])
        with self._channels.open("ab") as stream:
            steps = np.clip(np.rint(channels / _STEP), -_MOST, _MOST).astype(np.int16)
            stream.write(steps.tobytes())
        self._sum += channels
        shapes = np.stack([cut(shape) for shape in mask_shapes(foreground, self._edge)])
        self._shapes.append(np.packbits(shapes, axis=-1))

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def orientations(self) -> tuple[str, ...]:
        """Those that keep the masks' shape."""
        return tuple(self._turns)

    def scores(
        self, images: Places, masks: Places, orientation: str = AS_THEY_ARE
    ) -> Float64[np.ndarray, "half channel image mask"]:
        """Mean of each channel of every image under every mask, for each half of the tiles.

        The mean image of all slices is taken away first: a mask on which every image is strong
        fits none of them better for that.
        """
        scores = np.zeros((2, len(CHANNELS), len(images), len(masks)))
        side = self.tiling.side**2
        for columns, shapes in self._masks(masks, orientation):
            for rows, channels in self.images(images):
                for half, tiles in enumerate(self.tiling.halves):
                    pixels = slice(tiles.start * side, tiles.stop * side)
                    for channel in range(len(CHANNELS)):
                        weights = shapes[:, channel, pixels]
                        size = np.maximum(weights.sum(1), 1)
                        found = channels[:, channel, pixels] @ weights.T
                        scores[half, channel, rows, columns] = found / size
        return scores

    def typical(
        self, masks: Places, orientation: str = AS_THEY_ARE
    ) -> Float64[np.ndarray, "half channel mask"]:
        """Mean of each channel of the mean image under every mask, for each half of the tiles.

        This is what :meth:`scores` takes away.
        """
        mean = self._sum / max(len(self), 1)
        found = np.zeros((2, len(CHANNELS), len(masks)))
        side = self.tiling.side**2
        for columns, shapes in self._masks(masks, orientation):
            for half, tiles in enumerate(self.tiling.halves):
                pixels = slice(tiles.start * side, tiles.stop * side)
                weights = shapes[..., pixels]
                sums = np.einsum("mcp,cp->cm", weights, mean[:, pixels])
                found[half, :, columns] = sums / np.maximum(weights.sum(-1), 1).T
        return found

    def tile_sums(
        self, pairs: Sequence[Pair], centred: bool = True
    ) -> Iterator[
        tuple[Float32[np.ndarray, "pair channel tile"], Float32[np.ndarray, "pair channel tile"]]
    ]:
        """Sums of each channel under a mask, tile by tile, and the pixels that they run over.

        Args:
            pairs: Image, mask and the mask's orientation; those of one image stand together.
            centred: Whether the mean image of all slices is taken away first.

        Yields:
            For each run of pairs of one image: the sums, and the numbers of pixels.
        """
        tiles = (len(CHANNELS), self.tiling.count, self.tiling.side**2)
        start = 0
        while start < len(pairs):
            image, stop = pairs[start][0], start
            while stop < len(pairs) and pairs[stop][0] == image:
                stop += 1
            (_, channels), *_ = self.images([image], centred)
            shapes = np.stack([self.shape(mask, turn) for _, mask, turn in pairs[start:stop]])
            shapes = shapes.reshape(-1, *tiles)
            sums = np.einsum("ctp,kctp->kct", channels[0].reshape(tiles), shapes)
            yield sums, shapes.sum(-1)
            start = stop

    def images(
        self, places: Places, centred: bool = True
    ) -> Iterator[tuple[slice, Float32[np.ndarray, "image channel pixel"]]]:
        """Channels of some images, less the mean image, a few at a time."""
        shape = (len(CHANNELS), self.tiling.pixels)
        stored = np.memmap(self._channels, np.int16, "r", shape=(len(self), *shape))
        mean = (self._sum / max(len(self), 1) * centred).astype(np.float32)
        for start in range(0, len(places), self._block):
            chosen = list(places[start : start + self._block])
            channels = stored[chosen].astype(np.float32)
            channels *= _STEP
            channels -= mean
            yield slice(start, start + len(chosen)), channels

    def _masks(
        self, places: Places, orientation: str
    ) -> Iterator[tuple[slice, Float32[np.ndarray, "mask shape pixel"]]]:
        """Outlines and insides of some masks, a few at a time."""
        for start in range(0, len(places), self._block):
            chosen = list(places[start : start + self._block])
            shapes = np.stack([self.shape(int(place), orientation) for place in chosen])
            yield slice(start, start + len(chosen)), shapes

    def shape(
        self, place: int, orientation: str = AS_THEY_ARE
    ) -> Float32[np.ndarray, "shape pixel"]:
        """Outline and inside of a mask, tile by tile."""
        bits = np.unpackbits(self._shapes[place], axis=-1, count=self.tiling.pixels)
        if orientation != AS_THEY_ARE:
            filled = np.concatenate([bits, np.zeros((len(bits), 1), np.uint8)], axis=1)
            bits = filled[:, self._turns[orientation]]
        return bits.astype(np.float32)
