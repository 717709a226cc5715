"""Zarr arrays of which every chunk was written: a file that is missing is an error, not zeros.

Zarr gives its fill value for a chunk that is not there. The manifest tells absent from zero when a
feature set is opened; but it may be removed while it is open, and zeros would be taken for tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zarr
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


def open_whole(folder: Path, codecs: Sequence[str]) -> zarr.Array[Any]:
    """Open an array for reading.

    Args:
        folder: The array's.
        codecs: Names of those that its chunks were written with. Another one, in a description from
            elsewhere, could make any amount of memory of a small file.

    Raises:
        ValueError: It has other codecs.
        OSError: It is not there.
    """
    array = zarr.open_array(WholeStore(folder, read_only=True), mode="r", zarr_format=3)
    stated = array.metadata.to_dict()["codecs"]
    found = _names(stated)
    if found not in (tuple(codecs), (_SHARDED, *codecs)):
        raise ValueError(f"its codecs are {', '.join(found)} instead of {', '.join(codecs)}")
    return array


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
