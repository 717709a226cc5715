"""A frame as text or bytes: what ``query --format`` prints and ``--out`` writes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from emcache.errors import UsageError

FORMATS = ("table", "csv", "json", "jsonl", "markdown", "parquet")
"""The formats that :func:`render` knows."""

_SUFFIXES: Mapping[str, str] = {
    ".txt": "table",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".md": "markdown",
    ".parquet": "parquet",
}
_ABSENT = "-"


def render(frame: pl.DataFrame, format: str) -> str | bytes:  # noqa: A002 - the option's name
    """Write a frame in one of :data:`FORMATS`.

    ``table`` and ``markdown`` are for reading: numbers rounded, ``-`` for what is absent. The
    others keep every digit. JSON has ISO 8601 dates, hexadecimal bytes, and null for NaN and
    infinity.

    Returns:
        Text that ends in a newline; bytes for Parquet.

    Raises:
        UsageError: The format is unknown.
    """
    writer = _WRITERS.get(format)
    if writer is None:
        raise UsageError(
            f"there is no format {format!r}; the formats are {', '.join(FORMATS)}.", subject=format
        )
    return writer(frame)


def render_for_terminal(frame: pl.DataFrame, columns: int) -> str:
    """A table where it fits into ``columns`` characters, else one block of lines for each row."""
    table = _table(frame)
    if max(len(line) for line in table.splitlines()) <= columns:
        return table
    width = max(len(name) for name in frame.columns)
    cells = zip(*(_readable_column(frame[name]) for name in frame.columns), strict=True)
    blocks = (
        "".join(f"{name:>{width}}  {cell}\n" for name, cell in zip(frame.columns, row, strict=True))
        for row in cells
    )
    return "\n".join(blocks) or table


def format_for_path(path: Path) -> str:
    """The format that a file's ending stands for.

    Raises:
        UsageError: None does.
    """
    known = _SUFFIXES.get(path.suffix.lower())
    if known is None:
        raise UsageError(
            f"{path.name} has the ending {path.suffix or '(none)'}; write a file that ends in "
            f"{', '.join(_SUFFIXES)}, or name the format with --format.",
            subject=path,
        )
    return known


def _table(frame: pl.DataFrame) -> str:
    columns = [_readable_column(frame[name]) for name in frame.columns]
    widths = [
        max(len(name), *map(len, cells), 0)
        for name, cells in zip(frame.columns, columns, strict=True)
    ]
    right = [frame[name].dtype.is_numeric() for name in frame.columns]
    lines = [_aligned(frame.columns, widths, right)]
    lines.append("  ".join("-" * width for width in widths))
    lines.extend(_aligned(cells, widths, right) for cells in zip(*columns, strict=True))
    return "\n".join(lines) + "\n"


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    return "  ".join(
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    ).rstrip()


def _markdown(frame: pl.DataFrame) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    columns = [_readable_column(frame[name]) for name in frame.columns]
    rules = ["--:" if frame[name].dtype.is_numeric() else ":--" for name in frame.columns]
    lines = [row(frame.columns), row(rules), *(row(cells) for cells in zip(*columns, strict=True))]
    return "\n".join(lines) + "\n"


def _csv(frame: pl.DataFrame) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows([_field(value) for value in row] for row in frame.iter_rows())
    return text.getvalue()


def _json(frame: pl.DataFrame) -> str:
    objects = [_dumps(row) for row in frame.iter_rows(named=True)]
    return "[" + ",".join(f"\n  {text}" for text in objects) + ("\n" if objects else "") + "]\n"


def _jsonl(frame: pl.DataFrame) -> str:
    return "".join(_dumps(row) + "\n" for row in frame.iter_rows(named=True))


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


_WRITERS: Mapping[str, Callable[[pl.DataFrame], str | bytes]] = {
    "table": _table,
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "markdown": _markdown,
    "parquet": _parquet,
}


def _readable_column(series: pl.Series) -> list[str]:
    return [_readable(value) for value in series.to_list()]


def _readable(value: Any) -> str:
    """A cell for the eye: on one line, with no control characters, numbers rounded."""
    match value:
        case None:
            return _ABSENT
        case bool():
            return "true" if value else "false"
        case float():
            return _rounded(value)
        case str():
            text = value
        case _:
            plain = plain_value(value)
            text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _rounded(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.4f}"
    return f"{value:.4g}"


def _field(value: Any) -> Any:
    """A CSV field: every digit, nothing for NULL, JSON for what has parts."""
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    plain = plain_value(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _dumps(row: Mapping[str, Any]) -> str:
    return json.dumps(
        {name: plain_value(value) for name, value in row.items()},
        ensure_ascii=False,
        allow_nan=False,
    )


def plain_value(value: Any) -> Any:
    """The value as JSON has it: ISO 8601 dates, hexadecimal bytes, null for NaN and infinity."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return int(value) if value.as_tuple().exponent == 0 else float(value)
        case date() | datetime() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return value.hex()
        case list() | tuple():
            return [plain_value(item) for item in value]
        case dict():
            return {str(name): plain_value(item) for name, item in value.items()}
        case pl.Series():
            return [plain_value(item) for item in value.to_list()]
        case _:
            return value
