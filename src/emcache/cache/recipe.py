"""What could change a token, and the hash of it.

A feature set is keyed by its **fingerprint**: SHA-256 of the canonical JSON of the recipe and of
the slices' pixel hashes in order. File names, file times and the machine do not enter; anything
that could change a value does. Two slices with the same pixels and the same **recipe** have the
same tokens, whichever dataset they stand in, so a new feature set copies what an older one holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from emcache.cache.encoding import TokenType
from emcache.data.resize import Preprocessing
from emcache.errors import StoreError
from emcache.storage.hashing import json_sha256

FORMAT_VERSION = 1
"""Version of a feature set's layout; a reader refuses a newer one."""

LABEL_FOLDER = "labels"
"""Folder of the label sets in a feature set's."""

LAST = "last"
"""The last block, as recipes name it."""


def read_shift(text: str) -> int:
    """Tokens along the edge of a patch, from ``patch`` (one) or ``shift:2``.

    Raises:
        ValueError: It is none.
    """
    if text == "patch":
        return 1
    if found := _SHIFT.fullmatch(text):
        return int(found[1])
    raise ValueError("neither patch nor shift:N")


_SHIFT = re.compile(r"shift:([2-9]|1\d)")
_NUMBERS = re.compile(r"[1-9]\d{0,3}([,+][1-9]\d{0,3})*")
_LAST_FEW = re.compile(r"last([1-9]\d{0,3})?")


def read_layers(text: str) -> str:
    """A choice of layers as protocols and labels write it: ``last``, ``last4`` or ``3+6+9+12``.

    Raises:
        ValueError: It is none.
    """
    if not (_NUMBERS.fullmatch(text) or _LAST_FEW.fullmatch(text)):
        raise ValueError("neither last, last4 nor numbers")
    return text.replace(",", "+")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How tokens are made of pixels."""

    backbone: str
    """Name of the backbone."""
    architecture: str
    """Architecture behind the name."""
    weights_sha256: str
    """Of the bytes of the weights."""
    preprocessing: Preprocessing
    """Size and normalisation."""
    precision: str
    """Arithmetic of the forward pass: ``float32`` or ``bfloat16``."""
    dtype: TokenType
    """Type the tokens are stored in."""
    layer: str = LAST
    """Which block's output, after the final normalisation."""
    adapter_sha256: str | None = None
    """Of the bytes of what a run changed in the backbone; None for the bare one."""
    shift: int = 1
    """Tokens along the edge of a patch, from as many shifted passes."""
    components: int | None = None
    """Number of principal components that are stored; None for the backbone's channels."""
    basis_sha256: str | None = None
    """Of the basis of the components."""

    def plain(self) -> Recipe:
        """The recipe of the tokens that smaller ones are made of; itself where it is one."""
        if self.components is None and self.dtype != "int8":
            return self
        return replace(self, dtype="float16", components=None, basis_sha256=None)

    def identity(self) -> dict[str, Any]:
        """Canonical JSON value of everything that enters the fingerprint."""
        identity = {
            **asdict(self),
            "preprocessing": self.preprocessing.identity(),
            "format": FORMAT_VERSION,
        }
        if self.adapter_sha256 is None:
            # Bare backbones have the key that they had before there were adapters.
            del identity["adapter_sha256"]
        if self.shift == 1:
            del identity["shift"]
        if self.components is None:
            del identity["components"], identity["basis_sha256"]
        return identity

    def sha256(self) -> str:
        """Hash of the identity."""
        return json_sha256(self.identity())


def feature_set_fingerprint(
    recipe: Recipe, pixel_sha256s: Sequence[str], grids: Sequence[tuple[int, int]]
) -> str:
    """Key of the feature set of these slices, in this order, by this recipe.

    Args:
        recipe: How the tokens are made.
        pixel_sha256s: Identity of each slice's pixels.
        grids: Rows and columns of tokens of each slice; they enter where they do not follow from
            pixels and recipe alone, that is at one physical scale.
    """
    key: dict[str, Any] = {"recipe": recipe.identity(), "slices": list(pixel_sha256s)}
    if recipe.preprocessing.pixel_size_nm is not None:
        key["grids"] = [list(grid) for grid in grids]
    return json_sha256(key)


_SHARD_BYTES = 128 << 20
_MOST_SLICES = 64
_FEWEST_SLICES = 8
_LARGEST_GRID = 1 << 16

Grid = tuple[int, int]


@dataclass(frozen=True, slots=True)
class StoredSlice:
    """Where a feature set keeps one slice."""

    id: str
    """Name of the slice when it was extracted."""
    pixel_sha256: str
    """Identity of its pixels."""
    grid: Grid
    """Rows and columns of its tokens."""
    index: int
    """Place in its grid's array."""


def stored_slices(facts: Any) -> tuple[StoredSlice, ...]:
    """What a manifest says of its slices: a list of tables.

    Raises:
        StoreError: It says nothing that could be slices.
    """
    counts: dict[Grid, int] = {}
    places = []
    for item in facts if isinstance(facts, list) else [facts]:
        match item:
            # A grid names a folder, so it must be two numbers and nothing else.
            case {"id": str(), "pixel_sha256": str(), "grid": [int(), int()], "index": int()} if (
                min(item["grid"]) >= 1 and max(item["grid"]) <= _LARGEST_GRID
            ):
                grid = (item["grid"][0], item["grid"][1])
                place = StoredSlice(item["id"], item["pixel_sha256"], grid, item["index"])
            case _:
                raise _odd_slice(item)
        # Slices stand in order, so one given twice, or beyond the array's end, would be no slice.
        if place.index != counts.get(grid, 0):
            raise _odd_slice(item)
        counts[grid] = place.index + 1
        places.append(place)
    return tuple(places)


def _odd_slice(item: Any) -> StoreError:
    return StoreError(
        f"a manifest lists the slice {item!r:.200}, which is none; expected those that `emcache "
        f"extract` writes: remove that feature set and extract again.",
        subject=item,
    )


def grid_name(grid: Grid) -> str:
    """``19x19``: rows x columns."""
    return f"{grid[0]}x{grid[1]}"


def place_slices(
    ids: Sequence[str], hashes: Sequence[str], grids: Sequence[Grid]
) -> tuple[StoredSlice, ...]:
    """Give every slice its place: in order, within the array of its grid."""
    counts: dict[Grid, int] = {}
    places = []
    for slice_id, sha256, grid in zip(ids, hashes, grids, strict=True):
        index = counts.get(grid, 0)
        counts[grid] = index + 1
        places.append(StoredSlice(slice_id, sha256, grid, index))
    return tuple(places)


def slices_per_shard(slice_bytes: int) -> int:
    """How many slices one shard file holds: about 128 MiB, from 8 to 64 slices.

    A shard is what is lost at a crash and written in one go, so it should be small; files on
    shared file systems are dear, so it should be large.
    """
    return max(_FEWEST_SLICES, min(_MOST_SLICES, _SHARD_BYTES // slice_bytes))


@dataclass(frozen=True, slots=True)
class Shard:
    """Slices whose tokens stand in one file."""

    grid: Grid
    """Rows and columns of tokens."""
    number: int
    """Place of the file in its grid's array."""
    positions: tuple[int, ...]
    """The slices, as positions in the feature set."""

    @property
    def token_file(self) -> str:
        """Path of the shard's file in the folder."""
        return f"grids/{grid_name(self.grid)}/tokens/c/{self.number}/0/0/0"


def plan_shards(places: Sequence[StoredSlice], dim: int, dtype: TokenType) -> tuple[Shard, ...]:
    """The files that the tokens of these slices go into, grid by grid, in order."""
    shards = []
    for grid, positions in positions_by_grid(places).items():
        step = slices_per_shard(grid[0] * grid[1] * dim * np.dtype(dtype).itemsize)
        shards += [
            Shard(grid, number, tuple(positions[start : start + step]))
            for number, start in enumerate(range(0, len(positions), step))
        ]
    return tuple(shards)


def positions_by_grid(places: Sequence[StoredSlice]) -> dict[Grid, list[int]]:
    """Positions of the slices of each grid shape, in order."""
    by_grid: dict[Grid, list[int]] = {}
    for position, item in enumerate(places):
        by_grid.setdefault(item.grid, []).append(position)
    return by_grid
