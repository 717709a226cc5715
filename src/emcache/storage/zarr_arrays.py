"""Zarr arrays of which every chunk was written: a file that is missing is an error, not zeros.

Zarr gives its fill value for a chunk that is not there. The manifest tells absent from zero when a
feature set is opened; but it may be removed while it is open, and zeros would be taken for tokens.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

PLAIN = ("bytes", "crc32c")
"""Codecs of tokens and vectors: stored as they are, with a checksum."""
PACKED = ("bytes", "zstd", "crc32c")
"""Codecs of labels."""

_SHARDED = "sharding_indexed"


class WholeStore(LocalStore):
    """A folder in which every file that is asked for must be."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """What the file ``key`` holds.

        Raises:
            FileNotFoundError: It is not there.
        """
        found = await super().get(key, prototype, byte_range)
        if found is None:
            raise FileNotFoundError(f"{key} is missing")
        return found


class WholeArray:
    """An array for reading, by zarr; and a slice at a time, straight from its file.

    For every read zarr goes through an event loop in a thread of its own, which takes longer
    than to read a slice of tokens. Training asks for one slice at a time, at every step.

    Args:
        folder: The array's.
        codecs: Names of those that its chunks were written with. Another one, in a description from
            elsewhere, could make any amount of memory of a small file.

    Raises:
        ValueError: It has other codecs.
        OSError: It is not there.
    """

    def __init__(self, folder: Path, codecs: Sequence[str]) -> None:
        array = zarr.open_array(WholeStore(folder, read_only=True), mode="r", zarr_format=3)
        stated = array.metadata.to_dict()["codecs"]
        found = _names(stated)
        if found not in (tuple(codecs), (_SHARDED, *codecs)):
            raise ValueError(f"its codecs are {', '.join(found)} instead of {', '.join(codecs)}")
        self._array = array
        self._folder = folder
        self._packed = tuple(codecs) == PACKED
        self._per_shard = array.shards[0] if array.shards and _is_as_ours(array, stated) else None
        """Slices of a shard; None where something else has written them in another way."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Slices, and what each is made of."""
        return self._array.shape

    @property
    def chunks(self) -> tuple[int, ...]:
        """Of what is compressed and checked at once."""
        return self._array.chunks

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""
        return np.dtype(self._array.dtype)

    def __getitem__(self, place: Any) -> np.ndarray:
        """Any part of it, as zarr reads it."""
        return np.asarray(self._array[place])

    def slice(self, index: int) -> Shaped[np.ndarray, "*shape"]:
        """The slice at a place along the first axis.

        Raises:
            ValueError: It is not there, or fails its checksum.
            OSError: Its file is not there.
        """
        if self._per_shard is None:
            return self[index]
        if not 0 <= index < self.shape[0]:
            raise ValueError(f"there is no slice {index} among {self.shape[0]}")
        values = np.empty(self.shape[1:], self.dtype)
        inner = values.data.cast("B")
        shard, place = divmod(index, self._per_shard)
        key = self._array.metadata.encode_chunk_key((shard, *(0 for _ in self.shape[1:])))
        with self._open(key) as file:
            end = file.seek(-(self._per_shard * _ENTRY.size + _CHECKSUM), os.SEEK_END)
            table = file.read(self._per_shard * _ENTRY.size)
            _check(table, file.read())
            offset, length = _ENTRY.unpack_from(table, place * _ENTRY.size)
            if offset + length > end or length < _CHECKSUM:
                raise ValueError(f"slice {index} is not in its shard")
            file.seek(offset)
            length -= _CHECKSUM
            if not self._packed and length == len(inner):
                file.readinto(inner)
                _check(inner, file.read(_CHECKSUM))
                return values
            held = file.read(length)
            _check(held, file.read(_CHECKSUM))
        if self._packed:
            import imagecodecs

            length = len(imagecodecs.zstd_decode(held, out=inner))
        if length != len(inner):
            raise ValueError(f"slice {index} has {length} bytes instead of {len(inner)}")
        return values

    def _open(self, key: str) -> BufferedReader:
        try:
            return (self._folder / key).open("rb")
        except FileNotFoundError:
            raise FileNotFoundError(f"{key} is missing") from None


_ENTRY = struct.Struct("<QQ")
"""Of the table at the end of a shard: where a chunk begins, and its bytes."""
_CHECKSUM = 4


def _check(held: bytes | memoryview, stated: bytes) -> None:
    # As an array, since it takes no memoryview.
    values = np.frombuffer(held, np.uint8)
    found = google_crc32c.value(values).to_bytes(_CHECKSUM, "little")
    if found != stated:
        raise ValueError(f"its checksum is {found.hex()} instead of {stated.hex()}")


def _is_as_ours(array: zarr.Array[Any], stated: Any) -> bool:
    """Whether a chunk is a slice, in a shard of some slices with its table at the end."""
    facts = stated[0]["configuration"]
    orders = {
        codec.get("configuration", {}).get("endian", "little")
        for codec in (*facts["codecs"], *facts["index_codecs"])
    }
    return (
        array.chunks == (1, *array.shape[1:])
        and array.shards is not None  # as the caller has checked; for the type checker
        and array.shards[1:] == array.shape[1:]
        and facts["index_location"] == "end"
        and {sys.byteorder, *orders} == {"little"}
    )


def _names(codecs: Any) -> tuple[str, ...]:
    """Of a list of codecs, those within a shard and of its index among them."""
    names: list[str] = []
    for codec in codecs:
        names.append(codec["name"])
        if codec["name"] == _SHARDED:
            facts = codec["configuration"]
            index = _names(facts["index_codecs"])
            names += _names(facts["codecs"])
            names += [] if index == PLAIN else [f"an index of {' '.join(index)}"]
    return tuple(names)


ZARR_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""No class of errors is common to them. Too little memory is not damage, and so not among them."""
