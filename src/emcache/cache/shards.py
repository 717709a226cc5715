"""A shard of tokens and its receipt, which several processes may write at once.

A receipt is a small file with the shard's checksum and the slices' pooled and class tokens. It is
written after the shard and renamed into place; a shard counts once its receipt is there.
"""

from __future__ import annotations

import io
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32, Shaped
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from emcache.cache.encoding import SCALES
from emcache.cache.feature_set import RECEIPTS
from emcache.cache.recipe import Shard, grid_name, slices_per_shard
from emcache.storage import atomic
from emcache.storage.hashing import file_sha256

VECTORS = ("pooled", "cls")
"""What a feature set holds of each slice beside its patch tokens, in float32: their mean, and the
class token."""
PREFIX = "prefix"
"""What one of a raw layer holds besides: all tokens before those of the patches."""
FURTHER = (PREFIX, *SCALES)
"""Vectors that only some have."""

Vectors = Mapping[str, Float32[np.ndarray, "slice ..."]]
"""Some or all of these, by name."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is remembered of a shard that is written."""

    token_sha256: str
    """Of the bytes of its file."""
    seconds: float
    """What its making took."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What stands beside a shard that counts."""

    written: Written
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class ShardTokens:
    """What goes into a shard and its receipt."""

    tokens: Shaped[np.ndarray, "slice row col channel"]
    """As they are stored."""
    vectors: Vectors
    seconds: float
    """What its making took."""


def write_shard(folder: Path, shard: Shard, content: ShardTokens) -> Written:
    """Write a whole shard of tokens and its receipt, durably.

    It may be written by several processes at once, as when a worker lost its network and another
    one has its work: each writes the same bytes under names of its own and renames them into place.

    Args:
        folder: The feature set, which its writer has described.
        shard: Which.
        content: Of its slices, in order.
    """
    # Below the receipts, which are no part of the feature set: a kill leaves it there.
    private = folder / RECEIPTS / f".writing-{uuid.uuid4().hex[:12]}"
    private.mkdir()
    try:
        array = create_tokens(private, "tokens", content.tokens.shape, content.tokens.dtype)
        # A whole shard in one assignment: writing slice by slice would rewrite the file each time.
        array[:] = content.tokens
        path = private / "tokens/c/0/0/0/0"
        atomic.sync_file(path)
        written = Written(file_sha256(path), content.seconds)
        place = folder / shard.token_file
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        atomic.sync_folder(place.parent)
    finally:
        shutil.rmtree(private, ignore_errors=True)
    write_receipt(folder, shard, Receipt(written, content.vectors))
    return written


def create_tokens(
    folder: Path, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> zarr.Array[Any]:
    """Describe an array of tokens (slice, row, col, channel), one slice a chunk.

    Args:
        folder: A Zarr group's, or an empty one.
        path: The array's, below it.
        shape: Of four numbers.
        dtype: The stored type.
    """
    _, rows, columns, dim = shape
    return zarr.create_array(
        LocalStore(folder),
        name=path,
        shape=shape,
        chunks=(1, rows, columns, dim),
        shards=(slices_per_shard(rows * columns * dim * dtype.itemsize), rows, columns, dim),
        dtype=dtype,
        filters=None,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        dimension_names=("slice", "row", "col", "channel"),
        config={"write_empty_chunks": True},
    )


def read_receipt(folder: Path, shard: Shard) -> Receipt | None:
    """The receipt of a shard; None where there is none that is whole."""
    try:
        with np.load(folder / _receipt_file(shard), allow_pickle=False) as stored:
            return Receipt(
                Written(str(stored["token_sha256"]), float(stored["seconds"])),
                {
                    name: stored[name]
                    for name in (*VECTORS, *(name for name in FURTHER if name in stored))
                },
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def write_receipt(folder: Path, shard: Shard, receipt: Receipt) -> None:
    """Write the receipt of a shard, which makes it count."""
    buffer = io.BytesIO()
    held: dict[str, Any] = {
        **receipt.vectors,
        "token_sha256": np.array(receipt.written.token_sha256),
        "seconds": np.array(receipt.written.seconds),
    }
    np.savez(buffer, **held)
    (folder / RECEIPTS).mkdir(exist_ok=True)
    atomic.write_bytes(folder / _receipt_file(shard), buffer.getvalue())


def _receipt_file(shard: Shard) -> str:
    return f"{RECEIPTS}/{grid_name(shard.grid)}-{shard.number}.npz"
