"""Feature sets: the tokens of a dataset's slices in one Zarr v3 group.

::

    cache/<feature-set>/
        manifest.json                  recipe, slices, every file's checksum; written last
        zarr.json                      the group
        pooled, cls                    (slice, channel) float32
        prefix                         (slice, prefix, channel) float32, of raw layers alone
        grids/19x19/tokens             (slice, row, col, channel) float16, one slice a chunk
        labels/<key>/...               see emcache.cache.labels
        moments/<key>.npz              see emcache.cache.moments

Slices of one size share a grid; a dataset of slices of several sizes has one array per grid shape.
Tokens are stored as the backbone makes them, channels last, without compression: they shrink by no
more than a twentieth, and reading would take five times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Le, Len, Lt
from jaxtyping import Float, Float32
from pydantic import AfterValidator

from emcache.cache.encoding import BASIS_FILE, SCALES, Encoding, Stored, TokenType, load_basis
from emcache.cache.recipe import FORMAT_VERSION, StoredSlice, grid_name, stored_slices
from emcache.errors import RecordError, StoreError
from emcache.models.layer_names import is_raw
from emcache.storage.hashing import is_inside
from emcache.storage.manifest import MANIFEST_NAME, load_manifest, read_manifest
from emcache.storage.zarr_arrays import PLAIN, ZARR_DAMAGE, WholeArray
from emcache.summaries import Summarised
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
    components: Annotated[int, Gt(0), Le(1 << 16)] | None = None
    basis_sha256: str | None = None
    tile: Annotated[list[_Edge | Literal[0]], Len(2, 2)] | None = None


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
    """The same without a look at the files.

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
    facts = found.description
    item = np.dtype(facts.dtype).itemsize * (facts.components or facts.dim)
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


RECEIPTS = "receipts"
"""Folder of what an extraction goes on from; without use where the feature set is finished."""
PARTIAL_SUFFIX = ".partial"
"""Ending of a feature set that is still being extracted."""
TRASH_PREFIX = ".removed-"
"""Beginning of one that is being removed."""


@dataclass(frozen=True, slots=True, repr=False)
class FeatureSet(Summarised):
    """A complete feature set, open for reading."""

    _kind = "FeatureSet"

    folder: Path
    """Where it stands."""
    manifest: Mapping[str, Any]
    """What its manifest states."""
    slices: tuple[StoredSlice, ...]
    """Its slices, in the dataset's order."""
    _arrays: dict[str, WholeArray] = field(default_factory=dict, repr=False)
    _encodings: list[Encoding] = field(default_factory=list, repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> FeatureSet:
        """Open a feature set, checking that every file is there with its size.

        Args:
            folder: Where it stands, in a workspace's ``cache``.

        Raises:
            StoreError: Incomplete or damaged.
            FormatVersionError: Written by a newer emcache.
        """
        place = Path(folder)
        return cls(place, *read_feature_manifest(place))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def fingerprint(self) -> str:
        """Key over recipe and slices."""
        return str(self.manifest["fingerprint"])

    @property
    def description(self) -> Mapping[str, Any]:
        """``backbone``, ``weights``, ``longest_edge``, ``patch``, ``dim`` and others."""
        description: Mapping[str, Any] = self.manifest["description"]
        return description

    @property
    def token_bytes(self) -> int:
        """Bytes of all tokens, uncompressed."""
        item = np.dtype(self.description["dtype"]).itemsize
        return sum(s.grid[0] * s.grid[1] * self._stored_dim * item for s in self.slices)

    @property
    def _stored_dim(self) -> int:
        return int(self.description.get("components") or self.description["dim"])

    @property
    def encoding(self) -> Encoding:
        """How its tokens are stored.

        Raises:
            StoreError: The basis of its principal components is damaged.
        """
        if not self._encodings:
            basis, sha256 = None, self.description.get("basis_sha256")
            if sha256 is not None:
                try:
                    basis = load_basis(self.folder / BASIS_FILE)
                except RecordError:
                    check_still_there(self.folder)
                if basis is None or basis.sha256 != sha256:
                    raise StoreError(
                        f"the basis of {self.name} is damaged or missing; remove it with `emcache "
                        f"cache prune {self.name}` and convert again.",
                        subject=self.folder,
                    )
            self._encodings.append(Encoding(self.description["dtype"], basis))
        return self._encodings[0]

    def tokens(self, position: int) -> Float[np.ndarray, "row col channel"]:
        """Patch tokens of the slice at ``position``, in float16 or, where stored so, in float32.

        Raises:
            StoreError: The bytes fail their checksum, or have gone; the slice is named.
        """
        tokens: Float[np.ndarray, "row col channel"]
        tokens = self.encoding.decode(self.stored(position))[0]
        return tokens

    def stored(self, position: int) -> Stored:
        """Patch tokens of the slice at ``position`` as they are stored.

        Raises:
            StoreError: As :meth:`tokens`.
        """
        place = self.slices[position]
        shape = (*place.grid, self._stored_dim)
        try:
            array = self._array(f"grids/{grid_name(place.grid)}/tokens")
            # A description that states another shape or type would give other tokens, and one that
            # states larger chunks would take memory for them.
            stated = {array.shape[1:], array.chunks[1:]}
            if stated != {shape} or array.dtype != self.description["dtype"]:
                raise ValueError(f"they are {array.dtype} of shape {array.shape[1:]}")
            stored = Stored(array.slice(place.index)[None], self._scales(position))
        except ZARR_DAMAGE as error:
            check_still_there(self.folder)
            raise StoreError(
                f"the tokens of slice {place.id} in {self.name} are damaged ({error!s:.400}); run "
                f"`emcache cache verify --repair`, which computes them again.",
                subject=place.id,
            ) from error
        return stored

    def pooled(self) -> Float32[np.ndarray, "slice channel"]:
        """Mean of each slice's patch tokens, taken before they were rounded to the stored type.

        Raises:
            StoreError: Damaged.
        """
        return self._vectors("pooled")

    def cls(self) -> Float32[np.ndarray, "slice channel"]:
        """Class token of each slice.

        Raises:
            StoreError: Damaged.
        """
        return self._vectors("cls")

    def prefix(self) -> Float32[np.ndarray, "slice prefix channel"]:
        """All tokens before those of the patches, of a raw layer.

        Raises:
            StoreError: Damaged, or of another layer, which keeps the class token alone.
        """
        return self._vectors("prefix")

    def vectors(self) -> dict[str, Float32[np.ndarray, "slice ..."]]:
        """What stands beside the tokens, however they are stored, by the name of its array.

        Raises:
            StoreError: Damaged.
        """
        vectors = {"pooled": self.pooled(), "cls": self.cls()}
        return {**vectors, "prefix": self.prefix()} if self.is_raw else vectors

    @property
    def is_raw(self) -> bool:
        """Whether it holds the output of a block as it is, with which the blocks behind go on."""
        return is_raw(str(self.description.get("layer")))

    def __len__(self) -> int:
        return len(self.slices)

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        facts = self.description
        names = ("dataset", "split", "backbone", "weights", "longest_edge", "pixel_size_nm")
        shown = {name: facts[name] for name in names if facts.get(name) is not None}
        grids = sorted({item.grid for item in self.slices})
        shown["slices"] = len(self)
        shown["tokens"] = ", ".join(f"{rows} x {columns}" for rows, columns in grids[:3])
        shown["channels"] = facts["dim"]
        return self.name, {**shown, "type": facts["dtype"], "GB": f"{self.token_bytes / 1e9:.3g}"}

    def _scales(self, position: int) -> dict[str, Float32[np.ndarray, "slice channel"]]:
        """Of one slice in 8 bits; nothing of others."""
        if self.description["dtype"] != "int8":
            return {}
        shape = (len(self.slices), self._stored_dim)
        scales = {name: self._array(name) for name in SCALES}
        for name, array in scales.items():
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"its {name} is {array.dtype} of shape {array.shape}")
        return {name: np.asarray(array[[position]]) for name, array in scales.items()}

    def _vectors(self, name: str) -> Float32[np.ndarray, "slice ..."]:
        shape = (len(self.slices), self.description["dim"])
        try:
            array = self._array(name)
            fits = len(array.shape) == (3 if name == "prefix" else 2) and array.dtype == np.float32
            if not fits or (array.shape[0], array.shape[-1]) != shape:
                raise ValueError(f"they are {array.dtype} of shape {array.shape}")
            return np.asarray(array[:], dtype=np.float32)
        except ZARR_DAMAGE as error:
            check_still_there(self.folder)
            raise StoreError(
                f"the {name} vectors of {self.name} are damaged ({error!s:.400}); run `emcache "
                f"cache verify --repair`, which computes them again.",
                subject=self.folder,
            ) from error

    def _array(self, path: str) -> WholeArray:
        # Opening an array parses JSON; training asks for the same one thousands of times.
        if path not in self._arrays:
            self._arrays[path] = WholeArray(self.folder / path, PLAIN)
        return self._arrays[path]


def check_still_there(folder: Path) -> None:
    """Say of a feature set that could not be read whether it has gone.

    Args:
        folder: Of one that was open.

    Raises:
        StoreError: It was removed, or is being repaired.
    """
    if not (folder / MANIFEST_NAME).is_file():
        raise StoreError(
            f"{folder.name} was removed or put aside for repair while it was being read; run the "
            f"command again, which looks for it anew.",
            subject=folder,
        )


def feature_set_folders(cache: Path) -> list[Path]:
    """Folder of every feature set that was completed, in the order of names."""
    if not cache.is_dir():
        return []
    return [
        folder
        for folder in sorted(cache.iterdir())
        if folder.is_dir() and folder.name[0] != "." and folder.suffix != PARTIAL_SUFFIX
    ]


def list_feature_sets(cache: Path) -> list[FeatureSet]:
    """Every sound feature set of a cache, in the order of names.

    One that is damaged must not keep the others from being used; see :func:`first_damage`.
    """
    sound = []
    for folder in feature_set_folders(cache):
        with suppress(StoreError):
            sound.append(FeatureSet.open(folder))
    return sound


def first_damage(cache: Path) -> StoreError | None:
    """What is wrong with the first feature set that cannot be opened; None where all can."""
    for folder in feature_set_folders(cache):
        try:
            FeatureSet.open(folder)
        except StoreError as error:
            return error
    return None


def find_feature_set(cache: Path, fingerprint: str) -> FeatureSet | None:
    """The complete feature set of that fingerprint, if there is one."""
    for feature_set in list_feature_sets(cache):
        if feature_set.fingerprint == fingerprint:
            return feature_set
    return None
