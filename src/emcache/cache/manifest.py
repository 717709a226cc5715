"""What a feature set's manifest must state, checked before anything of it is used.

A feature set may come from elsewhere, and every later module takes these values at their word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt, Le, Lt
from pydantic import AfterValidator

from emcache.cache.recipe import FORMAT_VERSION, TokenType
from emcache.cache.shards import StoredSlice, stored_slices
from emcache.errors import StoreError
from emcache.storage.hashing import is_inside
from emcache.storage.manifest import load_manifest, read_manifest
from emcache.validation import Content, Misfit, check

_Edge = Annotated[int, Gt(0), Le(1 << 20)]


def _one_folder(name: str) -> str:
    if not is_inside(name) or "/" in name:
        raise ValueError("not the name of a folder")
    return name


_Run = Annotated[str, AfterValidator(_one_folder)]


class _Recipe(Content):
    preprocessing: dict[str, Any]


class _Extraction(Content):
    record_id: _Run


class _Description(Content):
    dataset: str
    split: str | None = None
    backbone: str
    weights: str
    weights_sha256: str
    weights_revision: str | None = None
    longest_edge: _Edge | None = None
    pixel_size_nm: Annotated[float, Gt(0), Lt(float("inf"))] | None = None
    patch: Annotated[int, Gt(0), Le(1 << 10)]
    dim: Annotated[int, Gt(0), Le(1 << 16)]
    dtype: TokenType
    precision: str
    device: str
    adapter_run: _Run | None = None
    adapter_sha256: str | None = None


class _Manifest(Content):
    fingerprint: str
    recipe_sha256: str
    recipe: _Recipe
    description: _Description
    extraction: _Extraction


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
    found = check(_Manifest, dict(manifest))
    if isinstance(found, Misfit):
        raise StoreError(
            f"the manifest of {folder} states {found.key} = {found.value!r:.80}, which no feature "
            f"set has; expected one that `emcache extract` wrote: remove that folder and extract "
            f"again.",
            subject=folder,
        )
    slices = stored_slices(manifest.get("slices"))
    item = np.dtype(found.description.dtype).itemsize * found.description.dim
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
