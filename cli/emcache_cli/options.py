"""Options and arguments that several commands share, declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Workspace to work in. (default: $EMCACHE_WORKSPACE, else here and upward)",
        show_default=False,
    ),
]

DeviceOption = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")]

PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="auto|float32|bfloat16",
        help="Arithmetic of the forward pass; auto is bfloat16 where the device computes it.",
    ),
]


class Format(StrEnum):
    """How a result is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    MARKDOWN = "markdown"
    PARQUET = "parquet"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="How to write the result. (default: table on a terminal, else json)",
        show_default=False,
    ),
]


def parse_pair(text: str | None, option: str) -> tuple[float, float] | None:
    """Read ``0.1,99.9``; None where nothing was given.

    Raises:
        UsageError: Not two numbers, or the first is not below the second.
    """
    from emcache.errors import UsageError

    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not -float("inf") < low < high < float("inf"):
        raise UsageError(
            f"{option} {text!r} cannot be read; expected two numbers, the lower first, as "
            f"0.1,99.9.",
            subject=text,
        )
    return low, high


def parse_voxel_size(text: str | None) -> list[float] | None:
    """Read ``50,4.6,4.6``; None where nothing was given.

    Raises:
        UsageError: Not three positive numbers.
    """
    from emcache.errors import UsageError

    if text is None:
        return None
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise UsageError(
            f"--voxel-size {text!r} cannot be read; expected Z,Y,X in nanometres, as 50,4.6,4.6.",
            subject=text,
        )
    return sizes
