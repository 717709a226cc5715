"""OME-Zarr images and labels (version 0.5), written as their rows come.

https://ngff.openmicroscopy.org/0.5/ says how: a group with ``multiscales``, an array for each
level, and below it ``labels`` with a group of the same kind for each label image. Axes are z, y, x;
each level has half the rows and columns of the one before, and as many sections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.storage import LocalStore

from emcache.data.volumes.base import VoxelSize
from emcache.evaluation.pyramids import halved, level_sizes

VERSION = "0.5"
"""Of the specification."""

LABELS = "labels"
"""Group of the label images, below an image."""

_CHUNK = 512
# Sections are gathered to bricks of so many values, each of which is written once.
_BRICK = 1 << 25
_MOST_SECTIONS = 32


class MultiscaleWriter:
    """An image that is written section by section, and within a section row by row.

    Args:
        store: Folder of the outermost group.
        path: Of the image's group in it; empty for the outermost.
        shape: Sections, rows and columns.
        dtype: Of the values.
        voxel_size_nm: Along z, y and x; None where unknown.
        about: What else its ``ome`` attributes say, as ``image-label``.
    """

    def __init__(
        self,
        store: Path,
        path: str,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        voxel_size_nm: VoxelSize | None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.shape = shape
        self._labels = "image-label" in (about or {})
        sections, rows, columns = shape
        sizes = level_sizes(rows, columns)
        self._depth = max(1, min(_MOST_SECTIONS, sections, _BRICK // (rows * columns)))
        group = zarr.open_group(LocalStore(store), path=path, mode="a")
        group.attrs["ome"] = {
            "version": VERSION,
            "multiscales": [_multiscale(Path(path).name or "image", sizes, voxel_size_nm)],
            **(about or {}),
        }
        self.levels = [
            group.create_array(
                str(level),
                shape=(sections, *size),
                chunks=(self._depth, min(_CHUNK, size[0]), min(_CHUNK, size[1])),
                dtype=dtype,
                dimension_names=("z", "y", "x"),
            )
            for level, size in enumerate(sizes)
        ]
        self._waiting: list[Shaped[np.ndarray, "row col"]] = []
        self._rows = 0
        self._written = 0

    def append(self, rows: Shaped[np.ndarray, "row col"]) -> None:
        """Take the next rows; those of the next section follow the last of the one before."""
        self._waiting.append(rows)
        self._rows += len(rows)
        height = self.shape[1]
        while self._rows:
            done = self._written + self._rows == self.shape[0] * height
            # Whole sections where several make a brick, else bands that chunks divide.
            row = self._written % height
            brick = self._depth * height if self._depth > 1 else min(_CHUNK, height - row)
            if self._rows < brick and not done:
                return
            self._flush(min(brick, self._rows))

    def _flush(self, count: int) -> None:
        gathered = np.concatenate(self._waiting)
        brick, rest = gathered[:count], gathered[count:]
        self._waiting, self._rows = [rest], len(rest)
        height, columns = self.shape[1:]
        section, row = divmod(self._written, height)
        self._written += count
        sections = max(1, count // height)
        values = brick.reshape(sections, -1, columns)
        for level in self.levels:
            level[section : section + sections, row : row + values.shape[1]] = values
            values, row = halved(values, labels=self._labels), row // 2


def list_labels(store: Path, names: Sequence[str]) -> None:
    """Say in the group of the labels which there are.

    Args:
        store: Folder of the outermost group.
        names: Of the label images.
    """
    group = zarr.open_group(LocalStore(store), path=LABELS, mode="a")
    group.attrs["ome"] = {"version": VERSION, "labels": list(names)}


def image_label(names: Mapping[int, str] | None = None) -> dict[str, Any]:
    """What makes an image one of labels of the image two groups above.

    Args:
        names: What values stand for; None where each value is an object.
    """
    properties = [
        {"label-value": value, "class": name} for value, name in (names or {}).items() if value
    ]
    return {
        "image-label": {
            "source": {"image": "../../"},
            **({"properties": properties} if properties else {}),
        }
    }


def _multiscale(
    name: str, sizes: Sequence[tuple[int, int]], voxel_size_nm: VoxelSize | None
) -> dict[str, Any]:
    unit = {} if voxel_size_nm is None else {"unit": "nanometer"}
    z, y, x = voxel_size_nm or (1.0, 1.0, 1.0)
    datasets = []
    for level in range(len(sizes)):
        factor = 2.0**level
        # A pixel's place is its centre: that of a mean of two lies between them.
        shift = [0.0, y * (factor - 1) / 2, x * (factor - 1) / 2]
        moves: list[dict[str, Any]] = [{"type": "scale", "scale": [z, y * factor, x * factor]}]
        if level:
            moves.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": moves})
    return {
        "name": name,
        "axes": [{"name": axis, "type": "space", **unit} for axis in "zyx"],
        "datasets": datasets,
    }
