"""Writing a feature set, shard by shard, so that a crash at any instant loses one shard at most.

The set grows in ``<name>.partial``. A shard of tokens counts once its *receipt* stands beside it
(:mod:`emcache.cache.shards`). When every shard has its receipt, the receipts become the arrays
``pooled`` and ``cls``, the manifest is written, and the folder takes its final name.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from errno import ENOENT
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import LocalStore

from emcache.cache.encoding import TokenType
from emcache.cache.feature_set import RECEIPTS, FeatureSet
from emcache.cache.recipe import (
    FORMAT_VERSION,
    Shard,
    StoredSlice,
    grid_name,
    plan_shards,
    stored_slices,
)
from emcache.cache.shards import (
    FURTHER,
    VECTORS,
    Receipt,
    ShardTokens,
    Written,
    create_tokens,
    read_receipt,
    write_receipt,
    write_shard,
)
from emcache.errors import StoreError
from emcache.storage import atomic
from emcache.storage.hashing import file_sha256
from emcache.storage.manifest import write_manifest
from emcache.storage.zarr_arrays import PLAIN, WholeArray

_POOLED_CHUNK = _FURTHER_SHARD = 4096
_FURTHER_CHUNK = 16
# A shared file system may show what another machine has written so late.
_LATE_SECONDS = 90.0
# How names end while zarr and `atomic` write.
_TEMPORARY = ("*.partial", ".*.tmp")


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
        self._written: dict[Shard, Written] = {}
        self._create_arrays()
        for shard in self.shards:
            receipt = read_receipt(folder, shard)
            if receipt is not None and _sha256(folder / shard.token_file) == (
                receipt.written.token_sha256
            ):
                self._written[shard] = receipt.written

    @property
    def pending(self) -> tuple[Shard, ...]:
        """Shards that are not written yet, in order."""
        return tuple(shard for shard in self.shards if shard not in self._written)

    @property
    def seconds(self) -> float:
        """What the making of all written shards took, earlier attempts included."""
        return sum(written.seconds for written in self._written.values())

    def write(self, shard: Shard, content: ShardTokens) -> None:
        """Write a whole shard and its receipt, durably."""
        self.count(shard, write_shard(self.folder, shard, content))

    def lacks(self, shard: Shard) -> bool:
        """Whether a shard is not written yet."""
        return shard not in self._written

    def count(self, shard: Shard, written: Written) -> None:
        """Take a shard as written, which another process has written."""
        self._written[shard] = written

    def finish(self, final: Path, content: Mapping[str, Any]) -> FeatureSet:
        """Write ``pooled``, ``cls`` and the manifest, and move the folder to its final name.

        Args:
            final: Where the feature set shall stand.
            content: What the manifest states beside format, slices and files.
        """
        # A kill within the writing of a file leaves one under a name of its own, and whatever
        # stands in the folder now becomes part of the feature set.
        for pattern in _TEMPORARY:
            for left in list(self.folder.rglob(pattern)):
                if RECEIPTS not in left.parts:
                    left.unlink(missing_ok=True)
        self._write_vectors()
        for shard in self.shards:
            if not (self.folder / shard.token_file).is_file():
                raise FileNotFoundError(ENOENT, os.strerror(ENOENT), shard.token_file)
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
            {shard.token_file: done.token_sha256 for shard, done in self._written.items()},
            leave_out=RECEIPTS,
        )
        try:
            self.folder.rename(final)
        except OSError:
            # Where locks do nothing, another process may have made the same meanwhile.
            if not final.is_dir():
                raise
            shutil.rmtree(self.folder, ignore_errors=True)
            return FeatureSet.open(final)
        atomic.sync_folder(final.parent)
        # Only now: until the folder has its name, a crash resumes from the receipts.
        shutil.rmtree(final / RECEIPTS, ignore_errors=True)
        return FeatureSet.open(final)

    def _write_vectors(self) -> None:
        """Make arrays of what the receipts hold, a chunk at a time, however many there are."""
        count = len(self.slices)
        arrays = {
            name: self._described(name, partial(self._create_vectors, name, values.shape[1:]))
            for name, values in self._receipt(self.shards[0]).vectors.items()
        }
        shard_of = {position: shard for shard in self.shards for position in shard.positions}
        for start in range(0, count, _POOLED_CHUNK):
            chunk = range(start, min(start + _POOLED_CHUNK, count))
            vectors = {
                name: np.empty((len(chunk), *array.shape[1:]), np.float32)
                for name, array in arrays.items()
            }
            for shard in dict.fromkeys(shard_of[position] for position in chunk):
                receipt = self._receipt(shard)
                rows = [row for row, p in enumerate(shard.positions) if p in chunk]
                places = [shard.positions[row] - start for row in rows]
                for name, values in vectors.items():
                    values[places] = receipt.vectors[name][rows]
            for name, array in arrays.items():
                array[chunk.start : chunk.stop] = vectors[name]

    def _receipt(self, shard: Shard) -> Receipt:
        """What a shard's receipt holds; one of another machine may be seen late."""
        until = time.monotonic() + _LATE_SECONDS
        while (receipt := read_receipt(self.folder, shard)) is None:
            if time.monotonic() > until:
                raise StoreError(
                    f"the receipt of {shard.token_file} in {self.folder} is not there, though the "
                    f"shard was written; run the command again, which makes both anew.",
                    subject=self.folder,
                )
            # Listing a folder makes network file systems look again.
            list((self.folder / RECEIPTS).iterdir())
            time.sleep(0.5)
        return receipt

    def _create_arrays(self) -> None:
        """Describe the token arrays, where an earlier attempt has not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RECEIPTS).mkdir(exist_ok=True)
        for grid in {shard.grid: None for shard in self.shards}:
            path = f"grids/{grid_name(grid)}/tokens"
            count = sum(len(shard.positions) for shard in self.shards if shard.grid == grid)
            shape = (count, *grid, self._dim)
            self._described(path, partial(create_tokens, self.folder, path, shape, self._dtype))
            for group in ("", "grids", f"grids/{grid_name(grid)}"):
                # Creating an array describes the groups above it; one that stands already does not.
                if not (self.folder / group / "zarr.json").exists():
                    with suppress(ContainsGroupError):
                        zarr.create_group(LocalStore(self.folder), path=group)

    def _create_vectors(self, name: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
        count = len(self.slices)
        return zarr.create_array(
            LocalStore(self.folder),
            name=name,
            shape=(count, *shape),
            # Those that are read with a slice's tokens stand in small chunks.
            chunks=(min(count, _POOLED_CHUNK) if name in VECTORS else _FURTHER_CHUNK, *shape),
            shards=None if name in VECTORS else (_FURTHER_SHARD, *shape),
            dtype=np.float32,
            filters=None,
            compressors=[Crc32cCodec()],
            dimension_names=("slice", "channel") if len(shape) == 1 else ("slice", name, "channel"),
            config={"write_empty_chunks": True},
        )

    def _described(self, path: str, create: Callable[[], zarr.Array[Any]]) -> zarr.Array[Any]:
        """An array of the folder, created where it is not there.

        Where locks do nothing, another process may be at it too: nothing of its is removed.
        """
        if (self.folder / path / "zarr.json").exists():
            try:
                return zarr.open_array(LocalStore(self.folder / path), mode="r+")
            except (OSError, ValueError, KeyError, TypeError):
                # Damaged: made anew, and what it describes with it.
                shutil.rmtree(self.folder / path, ignore_errors=True)
        with suppress(ContainsArrayError):
            return create()
        return zarr.open_array(LocalStore(self.folder / path), mode="r+")


def _sha256(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


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
    stored = {name.partition("/")[0] for name in manifest["files"]}
    names = [*VECTORS, *(name for name in FURTHER if name in stored)]
    if any(name.partition("/")[0] in names for name in wrong):
        return
    values = {name: np.asarray(WholeArray(folder / name, PLAIN)[:], np.float32) for name in names}
    for shard in plan_shards(slices, facts.get("components") or facts["dim"], facts["dtype"]):
        described = f"grids/{grid_name(shard.grid)}/tokens/zarr.json"
        if wrong.isdisjoint({shard.token_file, described}):
            rows = list(shard.positions)
            receipt = Receipt(
                Written(manifest["files"][shard.token_file]["sha256"], seconds=0.0),
                {name: vectors[rows] for name, vectors in values.items()},
            )
            write_receipt(folder, shard, receipt)
