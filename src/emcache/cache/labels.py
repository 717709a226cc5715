"""Label sets: masks at training size beside the tokens, so that training opens no image.

A label set has a key of its own over the masks' pixels and the class rule. A corrected mask makes a
new label set and re-runs no backbone; the old one stays for the records that used it.

::

    cache/<feature-set>/labels/<key>/
        manifest.json
        grids/19x19/mask         (slice, row, col) uint8: 0 background, 1 foreground (or 1 and up
                                 the named classes, 255 ignored); Zstd
        grids/19x19/occupancy    (slice, row, col) float32: foreground share of each token's patch,
                                 NaN where all of it is ignored
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32, UInt8
from numpy.typing import DTypeLike
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from emcache.cache.feature_set import FeatureSet, check_still_there
from emcache.cache.inputs import training_mask
from emcache.cache.recipe import (
    LABEL_FOLDER,
    Grid,
    StoredSlice,
    grid_name,
    positions_by_grid,
    slices_per_shard,
)
from emcache.data.classes import ClassRule
from emcache.data.dataset import Slice
from emcache.data.resize import occupancy
from emcache.errors import DatasetError, StoreError
from emcache.progress import Reporter
from emcache.storage import atomic
from emcache.storage.hashing import json_sha256
from emcache.storage.locks import held
from emcache.storage.manifest import read_manifest, write_manifest
from emcache.storage.zarr_arrays import PACKED, ZARR_DAMAGE, WholeArray

LABEL_FORMAT = 1
"""Version of a label set's layout."""

_KEY_LENGTH = 16


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of a feature set's slices, open for reading."""

    folder: Path
    key: str
    slices: tuple[StoredSlice, ...]
    patch: int
    _arrays: dict[str, WholeArray] = field(default_factory=dict, repr=False)

    def mask(self, position: int) -> UInt8[np.ndarray, "row col"]:
        """Labels at training size of the slice at ``position``; 0 is the background.

        Raises:
            StoreError: The bytes fail their checksum; the slice is named.
        """
        return np.asarray(self._read("mask", position, np.uint8, self.patch))

    def occupancy(self, position: int) -> Float32[np.ndarray, "token_row token_col"]:
        """Foreground share of each token's patch.

        Raises:
            StoreError: As :meth:`mask`.
        """
        return np.asarray(self._read("occupancy", position, np.float32, 1))

    def _read(self, name: str, position: int, dtype: DTypeLike, per_token: int) -> Any:
        place = self.slices[position]
        path = f"grids/{grid_name(place.grid)}/{name}"
        try:
            if path not in self._arrays:
                self._arrays[path] = WholeArray(self.folder / path, PACKED)
            array = self._arrays[path]
            shape = tuple(side * per_token for side in place.grid)
            if {array.shape[1:], array.chunks[1:]} != {shape} or array.dtype != dtype:
                raise ValueError(f"{array.dtype} of shape {array.shape[1:]} instead of {shape}")
            return array.slice(place.index)
        except ZARR_DAMAGE as error:
            check_still_there(self.folder.parents[1])
            raise StoreError(
                f"the {name} of slice {place.id} in {self.folder} is damaged ({error!s:.400}); run "
                f"`emcache cache verify --repair`: it is made again from the masks.",
                subject=place.id,
            ) from error


def label_key(
    slices: Sequence[Slice],
    classes: ClassRule,
    preprocessing: Mapping[str, Any],
    grids: Sequence[Grid],
) -> str:
    """Key of the labels of these slices, as every record of a training names them.

    Args:
        slices: Whose masks; all have one.
        classes: What the masks' values stand for.
        preprocessing: :meth:`emcache.data.resize.Preprocessing.identity`.
        grids: Rows and columns of tokens of each slice.

    Raises:
        DatasetError: A slice has no mask.
    """
    unlabelled = [item.id for item in slices if item.mask is None]
    if unlabelled:
        raise DatasetError(
            f"slice {unlabelled[0]} has no mask ({len(unlabelled)} of {len(slices)} have none); "
            f"training needs labelled slices.",
            subject=unlabelled,
        )
    resize: list[Any] = [preprocessing.get("longest_edge"), preprocessing["patch"], "nearest"]
    if resize[0] is None:
        # One physical scale: the sizes follow from the dataset's own pitch.
        resize[0] = [list(grid) for grid in grids]
    return json_sha256(
        {
            "format": LABEL_FORMAT,
            "masks": [item.mask_sha256 for item in slices],
            "classes": classes.identity(),
            "resize": resize,
        }
    )[:_KEY_LENGTH]


def ensure_labels(
    feature_set: FeatureSet, slices: Sequence[Slice], classes: ClassRule, reporter: Reporter
) -> LabelSet:
    """The label set of these masks, made now where it is not there.

    Args:
        feature_set: Whose tokens the labels go with.
        slices: The dataset's slices, in the feature set's order; each has a mask.
        classes: What the masks' values stand for.
        reporter: Receives progress, where masks must be read.

    Raises:
        DatasetError: A slice has no mask.
        ImageError: A mask cannot be read.
        StoreError: The feature set was removed meanwhile.
    """
    preprocessing = feature_set.manifest["recipe"]["preprocessing"]
    grids = [item.grid for item in feature_set.slices]
    key = label_key(slices, classes, preprocessing, grids)
    folder = feature_set.folder / LABEL_FOLDER / key
    if not folder.is_dir():
        # Under its lock, so that it is not removed meanwhile and half of it made anew.
        lock = feature_set.folder.with_name(f".{feature_set.name}.lock")
        with held(lock, f"making labels of {feature_set.name}", reporter):
            check_still_there(feature_set.folder)
            if not folder.is_dir():
                _write(folder, feature_set, slices, classes, reporter)
    read_manifest(folder, LABEL_FORMAT)
    return LabelSet(folder, key, feature_set.slices, feature_set.description["patch"])


def _write(
    folder: Path,
    feature_set: FeatureSet,
    slices: Sequence[Slice],
    classes: ClassRule,
    reporter: Reporter,
) -> None:
    patch = feature_set.description["patch"]
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with reporter.task("Resizing masks", len(slices), "slices") as task:
            for grid, positions in positions_by_grid(feature_set.slices).items():
                _write_grid(partial, grid, [slices[p] for p in positions], classes, patch)
                task.advance(len(positions))
        write_manifest(partial, {"format": LABEL_FORMAT, "key": folder.name}, {})
        try:
            partial.rename(folder)
        except OSError:
            # Another process made the same labels meanwhile; on some file systems locks do nothing.
            if not folder.is_dir():
                raise
        atomic.sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_grid(
    partial: Path,
    grid: Grid,
    slices: Sequence[Slice],
    classes: ClassRule,
    patch: int,
) -> None:
    size = (grid[0] * patch, grid[1] * patch)
    per_shard = slices_per_shard(size[0] * size[1])
    masks, shares = (
        _create(partial, f"grids/{grid_name(grid)}/{name}", len(slices), shape, dtype, per_shard)
        for name, shape, dtype in (("mask", size, "uint8"), ("occupancy", grid, "float32"))
    )
    for start in range(0, len(slices), per_shard):
        block = [training_mask(item, classes, size) for item in slices[start : start + per_shard]]
        masks[start : start + len(block)] = np.stack(block)
        shares[start : start + len(block)] = np.stack([occupancy(mask, patch) for mask in block])


def _create(
    partial: Path, path: str, count: int, shape: Sequence[int], dtype: str, per_shard: int
) -> zarr.Array[Any]:
    return zarr.create_array(
        LocalStore(partial),
        name=path,
        shape=(count, *shape),
        chunks=(1, *shape),
        shards=(per_shard, *shape),
        dtype=dtype,
        filters=None,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        dimension_names=("slice", "row", "col"),
        config={"write_empty_chunks": True},
    )
