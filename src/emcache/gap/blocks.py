"""Blocks of neighbouring slices: what may be called independent in a stack.

Neighbours in a stack show nearly the same tissue. Leaving out or permuting single slices would take
each for new evidence and give intervals that are too narrow; whole blocks are left out and permuted
instead (Kuensch, Ann. Statist. 17:1217, 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

MOST_BLOCKS = 10
"""Blocks that a stack is cut into, where it is long enough."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Vectors in the order of their stack."""

    vectors: Float[np.ndarray, "vector channel"]
    owners: Int64[np.ndarray, " vector"]
    """Position of the slice that each vector is of; it never falls."""

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of_slices(cls, vectors: Float[np.ndarray, "slice channel"]) -> Sample:
        """One vector a slice."""
        return cls(vectors, np.arange(len(vectors)))

    def blocks(self, shortest: int = 2) -> list[Int64[np.ndarray, _]]:
        """Cut the stack into blocks of nearly equally many neighbouring slices.

        Args:
            shortest: Fewest slices in a block, where there are that many.

        Returns:
            Positions of each block's vectors, at most :data:`MOST_BLOCKS` blocks.
        """
        slices = np.unique(self.owners)
        number = max(1, min(MOST_BLOCKS, len(slices) // shortest))
        return [
            np.flatnonzero(np.isin(self.owners, part)) for part in np.array_split(slices, number)
        ]

    def without(self, block: Int64[np.ndarray, _]) -> Float[np.ndarray, "rest channel"]:
        """The vectors that are not in a block."""
        kept = np.ones(len(self), dtype=bool)
        kept[block] = False
        rest: Float[np.ndarray, "rest channel"] = self.vectors[kept]
        return rest
