"""Where the edges of tiles are, to see whether predictions are worse there."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from emcache.data.tiling import Tiling

NEAR = 32
"""Pixels from an edge that count as near."""


def near_edges(size: tuple[int, int], tiling: Tiling) -> Bool[np.ndarray, "row col"]:
    """The pixels near an edge of a tile that lies within the slice.

    Args:
        size: Rows and columns of the slice.
        tiling: How it is cut.
    """
    near = np.zeros(size, bool)
    for axis, side in enumerate(size):
        starts = tiling.starts(side)
        for edge in (*starts[1:], *(start + tiling.edge for start in starts[:-1])):
            place = [slice(None)] * 2
            place[axis] = slice(edge - NEAR, edge + NEAR)
            near[tuple(place)] = True
    return near
