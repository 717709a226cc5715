"""Predictions of overlapping tiles put together without seams, and without holding a whole section.

Where tiles overlap, their logits are averaged with weights that fall to nothing towards a tile's
edge, where a network knows least of what lies around: the squared sine of nnU-Net's and MONAI's
kin, one over the overlap of two tiles and flat elsewhere. The weights of all tiles at a pixel sum
up to one, so where a single tile lies its logits stand as they are, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32

from emcache.data.plane import Part
from emcache.data.tiling import Tiling

# Pixels of a strip: what comes of its logits takes several times their memory.
_STRIP = 1 << 22

Logits = Float32[np.ndarray, "label row col"]


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of a slice that no further tile changes."""

    row: int
    """The first of them."""
    logits: Logits


def stitch(
    rows: int, columns: int, tiling: Tiling, logits_of: Callable[[Part], Logits]
) -> Iterator[Strip]:
    """The logits of a slice from those of its tiles, strip by strip from the top.

    Memory holds the rows of one tile, over all columns.

    Args:
        rows: Of the slice.
        columns: Of the slice.
        tiling: How it is cut.
        logits_of: Predicts one tile, at its own size.
    """
    down, across = _weights(rows, tiling), _weights(columns, tiling)
    height = len(down[0].values)
    sums: Logits | None = None
    for place, vertical in enumerate(down):
        for horizontal in across:
            part = Part(vertical.start, horizontal.start, height, len(horizontal.values))
            logits = logits_of(part)
            if sums is None:
                sums = np.zeros((len(logits), height, columns), np.float32)
            window = vertical.values[:, None] * horizontal.values
            sums[:, :, horizontal.start : horizontal.start + part.columns] += logits * window
        assert sums is not None  # noqa: S101 - there is at least one tile
        last = place + 1 == len(down)
        done = height if last else down[place + 1].start - vertical.start
        step = max(1, _STRIP // columns)
        for row in range(0, done, step):
            strip = sums[:, row : min(row + step, done)]
            yield Strip(vertical.start + row, strip.copy())
        # What the next row of tiles shares with this one; the rest begins anew.
        sums[:, : height - done] = sums[:, done:]
        sums[:, height - done :] = 0


@dataclass(frozen=True, slots=True)
class _Weights:
    """What a tile counts for, along one axis."""

    start: int
    values: Float32[np.ndarray, " pixel"]


def _weights(side: int, tiling: Tiling) -> Sequence[_Weights]:
    """The weights of all tiles along a side; at every pixel they sum up to one."""
    starts, edge = tiling.starts(side), min(side, tiling.edge)
    ramps = np.ones((len(starts), edge))
    for place, (before, after) in enumerate(pairwise(starts)):
        shared = before + edge - after
        rise = np.sin((np.arange(shared) + 0.5) / shared * np.pi / 2) ** 2
        ramps[place, edge - shared :] *= rise[::-1]
        ramps[place + 1, :shared] *= rise
    total = np.zeros(side)
    for start, ramp in zip(starts, ramps, strict=True):
        total[start : start + edge] += ramp
    return [
        _Weights(start, (ramp / total[start : start + edge]).astype(np.float32))
        for start, ramp in zip(starts, ramps, strict=True)
    ]
