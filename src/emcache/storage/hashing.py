"""Canonical JSON and the hashes taken of it.

Two values that mean the same have the same canonical text (sorted keys, no spaces, no NaN), so a
SHA-256 of that text identifies the value on any machine.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from emcache.validation import Content

_CHUNK = 1 << 20


class FileFacts(Content):
    """What JSON states of a file beside it."""

    bytes: Annotated[int, Ge(0)]
    sha256: str


def canonical_json(value: Any) -> str:
    """Text of ``value`` with sorted keys and no optional spaces; NaN and infinity are refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def json_sha256(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def is_inside(name: str) -> bool:
    """Whether a file's name, as JSON lists it, stays below the folder it is listed for."""
    parts = name.split("/")
    return bool(name) and "\0" not in name and not {"", ".", ".."} & set(parts)


def is_utf8(name: str) -> bool:
    """Whether a file's name, as Python gives it, is text; other bytes are lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
