"""Objects of a labelled volume: connected parts of one class, with ids that stay the same.

The volume is labelled block by block, by connected-components-3d, and never held. Each block is
read with the voxels around it that come before, so that parts of two blocks that touch are known,
also over edges and corners. Ids are 1, 2, ... in the order of an object's first voxel (by section,
row and column), whatever the blocks were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import cc3d
import numpy as np
import polars as pl
import zarr
from jaxtyping import Int64, UInt32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emcache.data.volumes.base import VoxelSize

_BLOCK = 1 << 24
_CONNECTIVITY: Final = 26
"""Voxels that share a corner belong together, as in :mod:`emcache.evaluation.shapes`."""

_AXES = ("z", "y", "x")


class _Block(NamedTuple):
    """Whole sections; or, where a section is large, some rows of one."""

    section: int
    sections: int
    row: int
    rows: int

    @property
    def place(self) -> tuple[slice, slice]:
        return (
            slice(self.section, self.section + self.sections),
            slice(self.row, self.row + self.rows),
        )


def label_objects(
    labels: zarr.Array[Any],
    names: Mapping[int, str],
    voxel_size_nm: VoxelSize | None,
    scratch: Path,
    write: Callable[[UInt32[np.ndarray, "row col"]], None],
    block_voxels: int = _BLOCK,
) -> pl.DataFrame:
    """Find the objects of a volume.

    Args:
        labels: Sections, rows and columns of labels; 0 is the background.
        names: What the labels stand for.
        voxel_size_nm: Along z, y and x; None where unknown.
        scratch: Where provisional ids are written; the caller removes it.
        write: Receives the ids, row by row and section by section.
        block_voxels: How much is held at a time.

    Returns:
        A row for each object: its id, class, voxels and volume, its centre and first and last voxel
        along each axis, and in how many slices it is.
    """
    provisional = zarr.create_array(
        scratch, shape=labels.shape, chunks=labels.chunks, dtype="uint32"
    )
    blocks = list(_blocks(labels.shape, block_voxels))
    parts = _Parts()
    for block in blocks:
        _label_block(block, labels, provisional, parts)
    ids = parts.ids()
    table = _Table(len(np.unique(ids)) - 1, labels.shape)
    for block in blocks:
        found = ids[np.asarray(provisional[block.place])]
        table.add(block, found, np.asarray(labels[block.place]))
        write(found.reshape(-1, found.shape[-1]))
    return table.frame(names, voxel_size_nm)


def _blocks(shape: tuple[int, ...], most: int) -> Iterator[_Block]:
    sections, rows, columns = shape
    depth = most // (rows * columns)
    if depth:
        for section in range(0, sections, depth):
            yield _Block(section, min(depth, sections - section), 0, rows)
        return
    height = max(1, most // columns)
    for section in range(sections):
        for row in range(0, rows, height):
            yield _Block(section, 1, row, min(height, rows - row))


class _Parts:
    """What was found of objects in single blocks, and which of it belongs together."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[Int64[np.ndarray, " part"]] = []
        self._pairs: list[Int64[np.ndarray, "pair 2"]] = []

    def add(self, first: Int64[np.ndarray, " part"]) -> None:
        """Number further parts.

        Args:
            first: Place of each part's first voxel in the volume.
        """
        self._first.append(first)
        self.count += len(first)

    def join(self, pairs: Int64[np.ndarray, "pair 2"]) -> None:
        """Numbers of parts that touch."""
        self._pairs.append(pairs)

    def ids(self) -> UInt32[np.ndarray, " number"]:
        """Id of the object of each part, by the part's number from 1; 0 for 0."""
        first = np.concatenate([np.zeros(0, np.int64), *self._first])
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *self._pairs]) - 1
        graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(self.count, self.count))
        count, group = connected_components(graph, directed=False)
        earliest = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(earliest, group, first)
        rank = np.empty(count, np.uint32)
        rank[np.argsort(earliest)] = np.arange(1, count + 1, dtype=np.uint32)
        return np.concatenate([np.zeros(1, np.uint32), rank[group]])


def _label_block(
    block: _Block, labels: zarr.Array[Any], provisional: zarr.Array[Any], parts: _Parts
) -> None:
    _, rows, columns = labels.shape
    # With the section before, the row before, and the row behind, which the section before has.
    before, above = min(block.section, 1), min(block.row, 1)
    below = min(rows - block.row - block.rows, 1) if before else 0
    around = (
        slice(block.section - before, block.section + block.sections),
        slice(block.row - above, block.row + block.rows + below),
    )
    local = cc3d.connected_components(
        np.ascontiguousarray(labels[around]), connectivity=_CONNECTIVITY, out_dtype=np.uint32
    )
    inside = (slice(before, None), slice(above, above + block.rows))
    own = np.ascontiguousarray(local[inside])
    flat = own.ravel()
    places = np.flatnonzero(flat)
    numbers = flat[places]
    # The last that is written stays: the first voxel of each part.
    first = np.full(int(local.max()) + 1, -1, np.int64)
    first[numbers[::-1]] = places[::-1]
    present = np.flatnonzero(first >= 0)
    renumbered = np.zeros(len(first), np.uint32)
    renumbered[present] = parts.count + 1 + np.arange(len(present), dtype=np.uint32)
    parts.add(first[present] + (block.section * rows + block.row) * columns)
    provisional[block.place] = renumbered[own]
    if before:
        known = np.asarray(provisional[block.section - 1, around[1]])
        parts.join(_touching(renumbered[local[0]], known))
    if above:
        known = np.asarray(provisional[block.place[0], block.row - 1])
        parts.join(_touching(renumbered[local[before:, 0]], known))


def _touching(here: np.ndarray, known: np.ndarray) -> Int64[np.ndarray, "pair 2"]:
    """Different numbers of the same voxels, which are parts of one object."""
    both = (here > 0) & (known > 0)
    pairs = np.stack([here[both], known[both]], axis=1).astype(np.int64)
    return np.unique(pairs, axis=0)


class _Table:
    """Sums over the voxels of each object."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self._voxels = np.zeros(count + 1, np.int64)
        self._sums = np.zeros((3, count + 1))
        self._first = np.broadcast_to(np.array(shape)[:, None], (3, count + 1)).copy()
        self._last = np.full((3, count + 1), -1)
        self._label = np.zeros(count + 1, np.int64)

    def add(self, block: _Block, ids: np.ndarray, labels: np.ndarray) -> None:
        """Take the voxels of a block."""
        places = np.nonzero(ids)
        found = ids[places]
        self._voxels += np.bincount(found, minlength=len(self._voxels))
        self._label[found] = labels[places]
        for axis, (place, start) in enumerate(
            zip(places, (block.section, block.row, 0), strict=True)
        ):
            at = place + start
            self._sums[axis] += np.bincount(found, weights=at, minlength=len(self._voxels))
            np.minimum.at(self._first[axis], found, at)
            np.maximum.at(self._last[axis], found, at)

    def frame(self, names: Mapping[int, str], voxel_size_nm: VoxelSize | None) -> pl.DataFrame:
        """A row for each object."""
        voxels = self._voxels[1:]
        size = np.array(voxel_size_nm or (np.nan,) * 3)
        centre = self._sums[:, 1:] / voxels
        columns: dict[str, Any] = {
            "object_id": np.arange(1, len(voxels) + 1),
            "class": [names[label] for label in self._label[1:].tolist()],
            "voxels": voxels,
            "volume_um3": voxels * size.prod() / 1e9,
            "n_slices": self._last[0, 1:] - self._first[0, 1:] + 1,
        }
        for axis, name in enumerate(_AXES):
            columns[name] = centre[axis]
            columns[f"{name}_nm"] = centre[axis] * size[axis]
            columns[f"{name}_first"] = self._first[axis, 1:]
            columns[f"{name}_last"] = self._last[axis, 1:]
        return pl.DataFrame(columns, schema_overrides={"class": pl.String}).fill_nan(None)
