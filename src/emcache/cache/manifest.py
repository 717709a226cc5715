"""What a feature set's manifest must state, checked before anything of it is used.

A feature set may come from elsewhere, and every later module takes these values at their word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emcache.cache.recipe import FORMAT_VERSION
from emcache.cache.shards import StoredSlice, stored_slices
from emcache.errors import StoreError
from emcache.storage.hashing import is_inside
from emcache.storage.manifest import load_manifest, read_manifest

_LARGEST_DIM = 1 << 16
_LARGEST_PATCH = 1 << 10
_LARGEST_EDGE = 1 << 20
_DTYPES = ("float16", "float32")

_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_run(value: Any) -> bool:
    """The name of a record, and so of one folder."""
    return isinstance(value, str) and is_inside(value) and "/" not in value


def _is_count(largest: int) -> _Check:
    return lambda value: type(value) is int and 0 < value <= largest


def _is_scale(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and 0 < value < float("inf"))


def _is_edge(value: Any) -> bool:
    return value is None or _is_count(_LARGEST_EDGE)(value)


_STATED: Mapping[str, _Check] = {
    "fingerprint": _is_text,
    "recipe_sha256": _is_text,
    "recipe": lambda value: (
        isinstance(value, dict) and isinstance(value.get("preprocessing"), dict)
    ),
    "description": lambda value: isinstance(value, dict),
    "extraction": lambda value: isinstance(value, dict) and _is_run(value.get("record_id")),
}
_DESCRIBED: Mapping[str, _Check] = {
    "dataset": _is_text,
    "split": _is_text_or_none,
    "backbone": _is_text,
    "weights": _is_text,
    "weights_sha256": _is_text,
    "weights_revision": _is_text_or_none,
    "longest_edge": _is_edge,
    "pixel_size_nm": _is_scale,
    "patch": _is_count(_LARGEST_PATCH),
    "dim": _is_count(_LARGEST_DIM),
    "dtype": lambda value: value in _DTYPES,
    "precision": _is_text,
    "device": _is_text,
    "adapter_run": lambda value: value is None or _is_run(value),
    "adapter_sha256": _is_text_or_none,
}


def read_feature_manifest(folder: Path) -> tuple[dict[str, Any], tuple[StoredSlice, ...]]:
    """A feature set's manifest and its slices, once every file is there with its size.

    Raises:
        StoreError: Incomplete, damaged, or it states what no feature set has.
        FormatVersionError: Written by a newer emcache.
    """
    manifest = read_manifest(folder, FORMAT_VERSION)
    return manifest, _checked(folder, manifest)


def load_feature_manifest(folder: Path) -> tuple[dict[str, Any], tuple[StoredSlice, ...]]:
    """The same, whatever became of the files.

    Raises:
        StoreError: The manifest is missing, damaged, or states what no feature set has.
        FormatVersionError: Written by a newer emcache.
    """
    manifest = load_manifest(folder, FORMAT_VERSION)
    return manifest, _checked(folder, manifest)


def _checked(folder: Path, manifest: Mapping[str, Any]) -> tuple[StoredSlice, ...]:
    for name, holds in _STATED.items():
        if not holds(manifest.get(name)):
            raise _odd(folder, name, manifest.get(name))
    description = manifest["description"]
    for name, holds in _DESCRIBED.items():
        if not holds(description.get(name)):
            raise _odd(folder, f"description.{name}", description.get(name))
    slices = stored_slices(manifest.get("slices"))
    item = np.dtype(description["dtype"]).itemsize * description["dim"]
    tokens = sum(place.grid[0] * place.grid[1] for place in slices) * item
    held = sum(facts["bytes"] for facts in manifest["files"].values())
    if tokens > held:
        # Tokens are not compressed, so this one would be zeros, and as many as it likes.
        raise StoreError(
            f"{folder} states tokens of {tokens} bytes, and its files hold {held}; expected a "
            f"feature set that `emcache extract` wrote: remove that folder and extract again.",
            subject=folder,
        )
    return slices


def _odd(folder: Path, name: str, value: Any) -> StoreError:
    return StoreError(
        f"the manifest of {folder} states {name} = {value!r:.80}, which no feature set has; "
        f"expected one that `emcache extract` wrote: remove that folder and extract again.",
        subject=folder,
    )
