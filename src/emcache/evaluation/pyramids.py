"""Large pages as tiled TIFF with smaller copies, written without holding one.

A page is spooled to a file of bare values as its rows come, and so is each smaller copy; then tiles
are cut from these. The copies stand in SubIFDs, as in OME-TIFF.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Shaped

TILE = 512
"""Edge of the tiles of a file, in pixels."""
_SMALLEST = 256
# How often rows are halved; bands of so many rows stay whole down to the smallest copy.
_MOST_LEVELS = 8


def level_sizes(rows: int, columns: int) -> list[tuple[int, int]]:
    """Rows and columns of a page and of its smaller copies, each of half the one before."""
    sizes = [(rows, columns)]
    while max(sizes[-1]) > _SMALLEST and len(sizes) < _MOST_LEVELS:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def halved(
    values: Shaped[np.ndarray, "*plane row col"], *, labels: bool
) -> Shaped[np.ndarray, "*plane row2 col2"]:
    """Half as many rows and columns: of labels every second, of greys the mean of four.

    Args:
        values: Of one plane, or of several. The last row or column counts twice where there is an
            odd one.
        labels: Whether they are labels, which have no mean.
    """
    if labels:
        return values[..., ::2, ::2]
    odd = [(0, 0)] * (values.ndim - 2) + [(0, side % 2) for side in values.shape[-2:]]
    even = np.pad(values, odd, mode="edge")
    quarters = [
        even[..., row::2, column::2].astype(np.float32) for row in (0, 1) for column in (0, 1)
    ]
    mean = sum(quarters[1:], quarters[0]) / 4
    return (mean if values.dtype.kind == "f" else np.rint(mean)).astype(values.dtype)


class Spool:
    """A page that is written to the disk row by row, with its smaller copies.

    Args:
        folder: Where its files go; the caller removes it.
        size: Rows and columns.
        dtype: Of the values; whole numbers are labels.
    """

    def __init__(self, folder: Path, size: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.sizes = level_sizes(*size)
        self.dtype = dtype
        self._files = [(folder / f"level-{n}").open("w+b") for n in range(len(self.sizes))]
        self._waiting = [np.empty((0, columns), dtype) for _, columns in self.sizes]
        self._written = [0] * len(self.sizes)

    def append(self, rows: Shaped[np.ndarray, "row col"], level: int = 0) -> None:
        """Take the next rows."""
        self._files[level].write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        self._written[level] += len(rows)
        if level + 1 == len(self.sizes):
            return
        waiting = np.concatenate([self._waiting[level], rows])
        # Pairs of rows, until the last one.
        ready = len(waiting) - len(waiting) % 2
        if self._written[level] == self.sizes[level][0]:
            ready = len(waiting)
        self._waiting[level] = waiting[ready:]
        if ready:
            self.append(halved(waiting[:ready], labels=self.dtype.kind != "f"), level + 1)

    def tiles(self, level: int) -> Iterator[Shaped[np.ndarray, "row col"]]:
        """The tiles of a level, row by row."""
        rows, columns = self.sizes[level]
        file = self._files[level]
        file.flush()
        for row in range(0, rows, TILE):
            count = min(TILE, rows - row)
            file.seek(row * columns * self.dtype.itemsize)
            band = np.fromfile(file, self.dtype, count * columns).reshape(count, columns)
            for column in range(0, columns, TILE):
                yield np.ascontiguousarray(band[:, column : column + TILE])

    def write(self, tiff: tifffile.TiffWriter) -> None:
        """Write the page, whose rows have all come, and its copies."""
        for level, size in enumerate(self.sizes):
            # Without metadata of its own a page is one of a stack, not a series by itself.
            tiff.write(
                self.tiles(level),
                shape=size,
                dtype=self.dtype,
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                subifds=len(self.sizes) - 1 if level == 0 else None,
                subfiletype=1 if level else None,
            )

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()
