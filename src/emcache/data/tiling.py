"""Where the tiles of a slice lie: how large they are, how far they overlap, whose each pixel is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from emcache.data.plane import Part
from emcache.errors import UsageError


class Tiling(NamedTuple):
    """How slices are cut into tiles that overlap, in pixels as they are stored."""

    edge: int
    """Of a tile, which is a square unless the slice is smaller."""
    overlap: int
    """Pixels that a tile shares with the next, at least."""

    @classmethod
    def of(cls, edge: int | None, overlap: int | None) -> Tiling | None:
        """The tiling that is asked for, checked; None where none is.

        Args:
            edge: Of a tile.
            overlap: None for an eighth of the edge.

        Raises:
            UsageError: It cannot be.
        """
        if edge is None:
            if overlap:
                raise UsageError(
                    f"an overlap of {overlap} is one of tiles, and there are none; give a tile "
                    f"too, or leave it out.",
                    subject=overlap,
                )
            return None
        tiling = cls(edge, edge // 8 if overlap is None else overlap)
        if edge < 1:
            raise UsageError(
                f"a tile of {edge} is no size; expected pixels, as 1022.", subject=edge
            )
        if not 0 <= tiling.overlap < edge:
            raise UsageError(
                f"an overlap of {tiling.overlap} does not fit a tile of {edge}; expected 0 to "
                f"{edge - 1} pixels, as {edge // 8}.",
                subject=tiling.overlap,
            )
        return tiling

    @property
    def words(self) -> str:
        """``1022+126``, as names have it."""
        return f"{self.edge}+{self.overlap}"

    def starts(self, side: int) -> list[int]:
        """Where tiles begin along a side of a slice: as few as there can be, at even distances.

        Tiles are of one size, so they may overlap by more than was asked for.

        Args:
            side: Rows or columns of the slice.
        """
        room = side - self.edge
        if room <= 0:
            return [0]
        steps = -(-room // (self.edge - self.overlap))
        return [round(step * room / steps) for step in range(steps + 1)]


def tiling_of(facts: Mapping[str, Any]) -> Tiling | None:
    """The tiling that a recipe's preprocessing or a feature set's description states.

    Raises:
        TypeError: It states something else.
    """
    stated = facts.get("tile")
    return None if stated is None else Tiling(*map(int, stated))


def cut(rows: int, columns: int, tiling: Tiling) -> list[tuple[Part, Part]]:
    """The tiles of a slice, row by row, and of each the pixels that are its own.

    Every pixel is some tile's own: where tiles overlap, that of the tile whose edge is farther.

    Args:
        rows: Of the slice.
        columns: Of the slice.
        tiling: How.
    """
    down, across = _spans(rows, tiling), _spans(columns, tiling)
    return [
        (
            Part(top, left, height, width),
            Part(own_top, own_left, own_bottom - own_top, own_right - own_left),
        )
        for (top, height), (own_top, own_bottom) in down
        for (left, width), (own_left, own_right) in across
    ]


def _spans(side: int, tiling: Tiling) -> Sequence[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and length of every tile along a side, and first and last pixel of its own."""
    starts, edge = tiling.starts(side), min(side, tiling.edge)
    borders = [0, *((before + edge + after) // 2 for before, after in pairwise(starts)), side]
    return [((start, edge), own) for start, own in zip(starts, pairwise(borders), strict=True)]
