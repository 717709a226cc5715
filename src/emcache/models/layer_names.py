"""Names of a backbone's layers."""

from __future__ import annotations

_RAW = "raw"


def raw_layer(block: int) -> str:
    """Name of a block's output as it is, before any normalisation: what the next block takes.

    Args:
        block: Its number, from 1.
    """
    return f"{_RAW}{block}"


def is_raw(layer: str) -> bool:
    """Whether a layer is a block's output as it is."""
    return layer.startswith(_RAW)


def block_of(layer: str) -> int:
    """Number of the block, from 1, whose output a layer is.

    Args:
        layer: Its number, or a name that :func:`raw_layer` gives.
    """
    return int(layer.removeprefix(_RAW))
