"""Writing a feature set, shard by shard, so that a crash at any instant loses one shard at most.

The set grows in ``<name>.partial``. A shard of tokens counts once its *receipt* stands beside it: a
small file with the shard's checksum and the slices' pooled and class tokens, written after the
shard and renamed into place. When every shard has its receipt, the receipts become the arrays
``pooled`` and ``cls``, the manifest is written, and the folder takes its final name.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float, Float32
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from emcache.cache.feature_set import RECEIPTS, FeatureSet
from emcache.cache.recipe import (
    FORMAT_VERSION,
    Grid,
    Shard,
    StoredSlice,
    TokenType,
    grid_name,
    plan_shards,
    slices_per_shard,
    stored_slices,
)
from emcache.storage import atomic
from emcache.storage.hashing import file_sha256
from emcache.storage.manifest import write_manifest
from emcache.storage.zarr_arrays import PLAIN, open_whole

_POOLED_CHUNK = 4096
# How names end while zarr and `atomic` write.
_TEMPORARY = ("*.partial", ".*.tmp")


@dataclass(frozen=True, slots=True)
class _Receipt:
    token_sha256: str
    pooled: Float32[np.ndarray, "slice channel"]
    cls: Float32[np.ndarray, "slice channel"]
    seconds: float


class FeatureSetWriter:
    """A feature set being written; resumes what an earlier writer left."""

    def __init__(
        self, folder: Path, slices: tuple[StoredSlice, ...], dim: int, dtype: TokenType
    ) -> None:
        self.folder = folder
        self.slices = slices
        self._dim = dim
        self._dtype = np.dtype(dtype)
        self.shards = plan_shards(slices, dim, dtype)
        self._receipts: dict[Shard, _Receipt] = {}
        self._arrays = self._create_arrays()
        for shard in self.shards:
            receipt = self._read_receipt(shard)
            if receipt is not None:
                self._receipts[shard] = receipt

    @property
    def pending(self) -> tuple[Shard, ...]:
        """Shards that are not written yet, in order."""
        return tuple(shard for shard in self.shards if shard not in self._receipts)

    @property
    def seconds(self) -> float:
        """What the making of all written shards took, earlier attempts included."""
        return sum(receipt.seconds for receipt in self._receipts.values())

    def write(
        self,
        shard: Shard,
        tokens: Float[np.ndarray, "slice row col channel"],
        pooled: Float32[np.ndarray, "slice channel"],
        cls: Float32[np.ndarray, "slice channel"],
        seconds: float,
    ) -> None:
        """Write a whole shard and its receipt, durably; ``seconds`` is what its making took."""
        per_shard = self._per_shard(shard.grid)
        start = shard.number * per_shard
        path = self.folder / shard.token_file
        # What a crash may have left must not be read and merged into a shard that is not full.
        path.unlink(missing_ok=True)
        # A whole shard in one assignment: writing slice by slice would rewrite the file each time.
        self._arrays[shard.grid][start : start + len(shard.positions)] = tokens
        atomic.sync_file(path)
        receipt = _Receipt(file_sha256(path), pooled, cls, seconds)
        _write_receipt(self.folder, shard, receipt)
        self._receipts[shard] = receipt

    def finish(self, final: Path, content: Mapping[str, Any]) -> FeatureSet:
        """Write ``pooled``, ``cls`` and the manifest, and move the folder to its final name.

        Args:
            final: Where the feature set shall stand.
            content: What the manifest states beside format, slices and files.
        """
        count = len(self.slices)
        for name in ("pooled", "cls"):
            values = np.empty((count, self._dim), dtype=np.float32)
            for shard, receipt in self._receipts.items():
                values[list(shard.positions)] = getattr(receipt, name)
            array = zarr.create_array(
                LocalStore(self.folder),
                name=name,
                shape=values.shape,
                chunks=(min(count, _POOLED_CHUNK), self._dim),
                dtype=values.dtype,
                filters=None,
                compressors=[Crc32cCodec()],
                dimension_names=("slice", "channel"),
                config={"write_empty_chunks": True},
                overwrite=True,
            )
            array[:] = values
        write_manifest(
            self.folder,
            {
                "format": FORMAT_VERSION,
                **content,
                "slices": [
                    {
                        "id": item.id,
                        "pixel_sha256": item.pixel_sha256,
                        "grid": list(item.grid),
                        "index": item.index,
                    }
                    for item in self.slices
                ],
            },
            {shard.token_file: receipt.token_sha256 for shard, receipt in self._receipts.items()},
            leave_out=RECEIPTS,
        )
        self.folder.rename(final)
        atomic.sync_folder(final.parent)
        # Only now: until the folder has its name, a crash resumes from the receipts.
        shutil.rmtree(final / RECEIPTS)
        return FeatureSet.open(final)

    def _per_shard(self, grid: Grid) -> int:
        return slices_per_shard(grid[0] * grid[1] * self._dim * self._dtype.itemsize)

    def _create_arrays(self) -> dict[Grid, zarr.Array[Any]]:
        """The token arrays, created or as an earlier attempt left them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for pattern in _TEMPORARY:
            # A kill within the writing of a file leaves one under a name of its own, and whatever
            # stands in the folder when it is finished becomes part of the feature set.
            for left in list(self.folder.rglob(pattern)):
                left.unlink(missing_ok=True)
        store = LocalStore(self.folder)
        if not (self.folder / "zarr.json").exists():
            zarr.create_group(store)
        arrays = {}
        for grid in {shard.grid: None for shard in self.shards}:
            rows, columns = grid
            count = sum(len(shard.positions) for shard in self.shards if shard.grid == grid)
            path = f"grids/{grid_name(grid)}/tokens"
            for parent in ("grids", f"grids/{grid_name(grid)}"):
                # Creating an array describes the groups above it; one that stands already does not.
                if (self.folder / path).is_dir() and not (
                    self.folder / parent / "zarr.json"
                ).exists():
                    zarr.create_group(store, path=parent)
            try:
                arrays[grid] = zarr.open_array(LocalStore(self.folder / path), mode="r+")
                continue
            except (OSError, ValueError, KeyError, TypeError):
                # Not there yet, or damaged: made anew, and its shards with it.
                shutil.rmtree(self.folder / path, ignore_errors=True)
            arrays[grid] = zarr.create_array(
                store,
                name=path,
                shape=(count, rows, columns, self._dim),
                chunks=(1, rows, columns, self._dim),
                shards=(self._per_shard(grid), rows, columns, self._dim),
                dtype=self._dtype,
                filters=None,
                serializer=BytesCodec(endian="little"),
                compressors=[Crc32cCodec()],
                dimension_names=("slice", "row", "col", "channel"),
                config={"write_empty_chunks": True},
            )
        return arrays

    def _read_receipt(self, shard: Shard) -> _Receipt | None:
        """The receipt of a shard that is whole; anything less means: write it again."""
        try:
            with np.load(self.folder / _receipt_file(shard), allow_pickle=False) as stored:
                receipt = _Receipt(
                    str(stored["token_sha256"]),
                    stored["pooled"],
                    stored["cls"],
                    float(stored["seconds"]),
                )
            if file_sha256(self.folder / shard.token_file) != receipt.token_sha256:
                return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return receipt


def write_receipts(folder: Path, manifest: Mapping[str, Any], wrong: AbstractSet[str]) -> None:
    """Make a complete feature set an unfinished one, in which the sound shards count as written.

    Args:
        folder: The feature set, already under the name of an unfinished one.
        manifest: What it was completed with.
        wrong: Files that are damaged or missing; a shard whose description or vectors are among
            them does not count.
    """
    slices = stored_slices(manifest["slices"])
    facts = manifest["description"]
    vectors = ("pooled", "cls")
    if any(name.partition("/")[0] in vectors for name in wrong):
        return
    values = {name: np.asarray(open_whole(folder / name, PLAIN)[:], np.float32) for name in vectors}
    for shard in plan_shards(slices, facts["dim"], facts["dtype"]):
        described = f"grids/{grid_name(shard.grid)}/tokens/zarr.json"
        if wrong.isdisjoint({shard.token_file, described}):
            rows = list(shard.positions)
            receipt = _Receipt(
                manifest["files"][shard.token_file]["sha256"],
                values["pooled"][rows],
                values["cls"][rows],
                seconds=0.0,
            )
            _write_receipt(folder, shard, receipt)


def _write_receipt(folder: Path, shard: Shard, receipt: _Receipt) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        token_sha256=np.array(receipt.token_sha256),
        pooled=receipt.pooled,
        cls=receipt.cls,
        seconds=np.array(receipt.seconds),
    )
    (folder / RECEIPTS).mkdir(exist_ok=True)
    atomic.write_bytes(folder / _receipt_file(shard), buffer.getvalue())


def _receipt_file(shard: Shard) -> str:
    return f"{RECEIPTS}/{grid_name(shard.grid)}-{shard.number}.npz"
