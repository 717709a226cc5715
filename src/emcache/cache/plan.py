"""Extraction jobs: everything that decides a feature set, resolved before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from emcache.cache.encoding import SCALES, Basis, Encoding, TokenType
from emcache.cache.feature_set import PARTIAL_SUFFIX
from emcache.cache.layers import find_layers
from emcache.cache.recipe import (
    LAST,
    Recipe,
    StoredSlice,
    feature_set_fingerprint,
    place_slices,
    plan_shards,
    read_shift,
)
from emcache.data.dataset import Dataset, Selection, Slice, load_dataset
from emcache.data.greys import GreyRule
from emcache.data.tiles import cut_dataset, preprocessing_with
from emcache.data.tiling import Tiling
from emcache.errors import UsageError
from emcache.models.arithmetic import Precision, pick_precision
from emcache.models.backbones.registry import BackboneSpec, find_backbone
from emcache.models.device import pick_device
from emcache.models.layer_names import is_raw
from emcache.models.tuned import TunedChoice
from emcache.models.weights import Weights, find_workspace_weights
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace

_NAME_HASH = 12
# zarr.json of the group, of grids, pooled and cls; the chunks of the latter two; the manifest.
_FIXED_FILES = 7


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """What the user may choose about an extraction."""

    backbone: str
    weights: str = "pretrained"
    longest_edge: int | None = None
    """None for that of a tile, or 1022."""
    dtype: TokenType = "float16"
    precision: str = "auto"
    device: str = "auto"
    batch: int = 4
    """Slices in one forward pass; it does not enter the fingerprint."""
    pixel_size_nm: float | None = None
    """Pitch that every dataset is brought to, in place of ``longest_edge``."""
    adapter: TunedChoice | None = None
    """What a run changed in the backbone that the tokens go through."""
    layer: str = LAST
    """Which block's output: its number from 1, or ``last``."""
    greys: GreyRule = GreyRule()  # noqa: RUF009 - frozen
    """What is done to the greys of a slice first."""
    shift: int = 1
    """Tokens along the edge of a patch, from as many shifted passes."""
    tiling: Tiling | None = None
    """How slices are cut into tiles first; None for whole ones."""
    basis: Basis | None = None
    """Of principal components that are stored in place of the channels."""
    elsewhere: bool = False
    """Whether workers compute: ``device`` and ``precision`` are theirs, and may not be here."""

    def on_workers(self, device: str, precision: str) -> ExtractOptions:
        """The same, computed by workers of that device and arithmetic."""
        return replace(self, device=device, precision=precision, elsewhere=True)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch} is not a batch; expected 1 or more.")
        if self.dtype not in get_args(TokenType):
            raise UsageError(
                f"--dtype {self.dtype!r} is unknown; expected {', '.join(get_args(TokenType))}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An extraction, resolved."""

    workspace: Workspace
    selection: Selection
    dataset: Dataset
    slices: tuple[Slice, ...]
    spec: BackboneSpec
    weights: Weights
    recipe: Recipe
    device: torch.device
    batch: int
    places: tuple[StoredSlice, ...]
    fingerprint: str
    adapter: TunedChoice | None = None
    greys: GreyRule = GreyRule()  # noqa: RUF009 - frozen
    basis: Basis | None = None

    @property
    def encoding(self) -> Encoding:
        """How tokens are stored."""
        return Encoding(self.recipe.dtype, self.basis)

    @property
    def stored_dim(self) -> int:
        """Numbers that are stored of a token."""
        return self.recipe.components or self.spec.dim

    def encoded(self, dtype: TokenType, basis: Basis | None) -> Job:
        """The job of the same tokens, stored in another way."""
        recipe = replace(self.recipe, dtype=dtype, **_of_basis(basis))
        return replace(self._with(recipe), basis=basis)

    @property
    def name(self) -> str:
        """Folder name of the feature set, readable first and unique at its end."""
        weights = "".join(c if c.isalnum() or c in ".-" else "-" for c in self.weights.label)
        selection = str(self.selection).replace(":", "-")
        # A backbone of any library may be named with a colon, which some file systems refuse.
        backbone = self.spec.name.replace(":", "-")
        size = self.recipe.preprocessing.words
        kind = "" if self.adapter is None else f"-{self.adapter.regime}"
        if self.recipe.layer != LAST:
            kind += f"-layer{self.recipe.layer}"
        if self.greys.name != "none":
            kind += f"-{self.greys.name}"
        if self.recipe.dtype == "int8":
            kind += "-int8"
        if self.recipe.components is not None:
            kind += f"-pca{self.recipe.components}"
        if self.recipe.shift > 1:
            kind += f"-shift{self.recipe.shift}"
        if (tiling := self.recipe.preprocessing.tiling) is not None:
            kind += f"-tile{tiling.words}"
        return f"{selection}-{backbone}{kind}-{weights}-{size}-{self.fingerprint[:_NAME_HASH]}"

    @property
    def pitch(self) -> int:
        """Pixels from one token to the next: the patch, or a part of it."""
        return self.spec.patch // self.recipe.shift

    @property
    def token_bytes(self) -> int:
        """Bytes of all tokens."""
        item = np.dtype(self.recipe.dtype).itemsize
        return sum(p.grid[0] * p.grid[1] * self.stored_dim * item for p in self.places)

    @property
    def n_files(self) -> int:
        """How many files the feature set will have, labels left out."""
        shards = plan_shards(self.places, self.stored_dim, self.recipe.dtype)
        grids = {shard.grid for shard in shards}
        vectors = is_raw(self.recipe.layer) + len(SCALES) * (self.recipe.dtype == "int8")
        basis = self.recipe.components is not None
        return len(shards) + 2 * len(grids) + 2 * vectors + basis + _FIXED_FILES

    def of_layer(self, layer: str) -> Job:
        """The job of another layer of the same slices."""
        return self._with(replace(self.recipe, layer=layer))

    def _with(self, recipe: Recipe) -> Job:
        hashes = [place.pixel_sha256 for place in self.places]
        grids = [place.grid for place in self.places]
        fingerprint = feature_set_fingerprint(recipe, hashes, grids)
        return replace(self, recipe=recipe, fingerprint=fingerprint)

    def part(self, positions: Sequence[int]) -> Job:
        """The job of some of the slices alone, which goes on in their feature set's name.

        Args:
            positions: Of slices of one grid, in order.
        """
        slices = tuple(self.slices[position] for position in positions)
        places = [self.places[position] for position in positions]
        return replace(
            self,
            # Of tiles, each knows its slice; the others would be sent along in vain.
            dataset=replace(self.dataset, slices=slices, whole=None),
            slices=slices,
            places=place_slices(
                [item.id for item in places],
                [item.pixel_sha256 for item in places],
                [item.grid for item in places],
            ),
        )

    def description(self) -> dict[str, Any]:
        """What the feature set's manifest and every record say of it."""
        tiling = self.recipe.preprocessing.tiling
        return {
            "dataset": self.selection.dataset,
            "split": self.selection.split,
            "backbone": self.spec.name,
            "weights": self.weights.label,
            "weights_sha256": self.weights.sha256,
            "weights_revision": self.weights.revision,
            "longest_edge": self.recipe.preprocessing.longest_edge,
            "pixel_size_nm": self.recipe.preprocessing.pixel_size_nm,
            # Pixels that a token stands for, along an edge.
            "patch": self.pitch,
            "dim": self.spec.dim,
            "layer": self.recipe.layer,
            "normalise": self.greys.label,
            "shift": self.recipe.shift,
            "tile": None if tiling is None else list(tiling),
            "dtype": self.recipe.dtype,
            "components": self.recipe.components,
            "basis_sha256": self.recipe.basis_sha256,
            "explained": None if self.basis is None else self.basis.explained,
            "precision": self.recipe.precision,
            "device": self.device.type,
            "adapter_run": None if self.adapter is None else self.adapter.run_id,
            "adapter_sha256": self.recipe.adapter_sha256,
        }


def parse_shift(text: str) -> int:
    """Tokens along the edge of a patch, from ``patch`` or ``shift:2``.

    Raises:
        UsageError: It is neither.
    """
    try:
        return read_shift(text)
    except ValueError as error:
        raise UsageError(
            f"--tokens cannot be {text!r:.100}; expected patch, or shift:N with N from 2 to 19.",
            subject=text,
        ) from error


def plan_layers(
    workspace: Workspace,
    selection: Selection,
    options: ExtractOptions,
    layers: str,
    reporter: Reporter,
) -> list[Job]:
    """Resolve the extraction of several layers, for :func:`emcache.cache.extract.run_extractions`.

    Args:
        workspace: Where.
        selection: Whose slices.
        options: How.
        layers: ``last``, ``last4`` or ``3,6,9,12``.
        reporter: Receives progress.

    Raises:
        EmcacheError: Of the dataset, backbone, weights, size, device or layers.
    """
    return [
        plan_extraction(workspace, selection, replace(options, layer=layer), reporter)
        for layer in find_layers(layers, find_backbone(options.backbone))
    ]


def plan_extraction(
    workspace: Workspace, selection: Selection, options: ExtractOptions, reporter: Reporter
) -> Job:
    """Resolve an extraction without running it.

    Raises:
        EmcacheError: Of the dataset, backbone, weights, size or device.
    """
    spec = find_backbone(options.backbone)
    device = torch.device(options.device) if options.elsewhere else pick_device(options.device)
    precision = pick_precision(options.precision, device)
    whole = load_dataset(workspace, selection.dataset, reporter)
    preprocessing = preprocessing_with(
        options.tiling,
        options.greys,
        spec.patch,
        options.longest_edge,
        options.pixel_size_nm,
        whole,
    )
    dataset = cut_dataset(workspace, whole, options.tiling, reporter)
    slices = selection.of(dataset)
    if spec.patch % options.shift:
        raise UsageError(
            f"a patch of {spec.name} is {spec.patch} px, which {options.shift} shifted passes do "
            f"not divide; choose another shift, as shift:2.",
            subject=options.shift,
        )
    coarse = [preprocessing.grid_of(item.height, item.width) for item in slices]
    grids = [(rows * options.shift, columns * options.shift) for rows, columns in coarse]
    weights = find_workspace_weights(workspace, options.weights, spec)
    recipe = Recipe(
        spec.name,
        spec.architecture,
        weights.sha256,
        preprocessing,
        precision,
        options.dtype,
        options.layer,
        adapter_sha256=None if options.adapter is None else options.adapter.sha256,
        shift=options.shift,
        **_of_basis(options.basis),
    )
    hashes = [item.pixel_sha256 for item in slices]
    if options.precision == "auto" and not options.elsewhere:
        recipe = _as_it_is_there(workspace.cache, recipe, hashes, grids, reporter)
    places = place_slices([item.id for item in slices], hashes, grids)
    return Job(
        workspace=workspace,
        selection=selection,
        dataset=dataset,
        slices=slices,
        spec=spec,
        weights=weights,
        recipe=recipe,
        device=device,
        batch=options.batch,
        places=places,
        fingerprint=feature_set_fingerprint(recipe, hashes, grids),
        adapter=options.adapter,
        greys=options.greys,
        basis=options.basis,
    )


def _of_basis(basis: Basis | None) -> dict[str, Any]:
    """What a recipe says of principal components."""
    if basis is None:
        return {"components": None, "basis_sha256": None}
    return {"components": len(basis.components), "basis_sha256": basis.sha256}


def _as_it_is_there(
    cache: Path,
    recipe: Recipe,
    hashes: Sequence[str],
    grids: Sequence[tuple[int, int]],
    reporter: Reporter,
) -> Recipe:
    """The recipe, or that of the same tokens in the other arithmetic where only these are there.

    A workspace may come from a machine that is faster in the other one.
    """
    other = replace(recipe, precision=str(next(p for p in Precision if p != recipe.precision)))
    mine, theirs = (
        _named_by(cache, feature_set_fingerprint(each, hashes, grids)) for each in (recipe, other)
    )
    if mine is not None or theirs is None:
        return recipe
    reporter.say(
        f"{theirs.removesuffix(PARTIAL_SUFFIX)} was computed in {other.precision} and is used as "
        f"it is; this machine is faster in {recipe.precision}, and --precision {recipe.precision} "
        f"makes such tokens."
    )
    return other


def _named_by(cache: Path, fingerprint: str) -> str | None:
    """Name of a feature set of that fingerprint, finished or not."""
    found = cache.glob(f"*-{fingerprint[:_NAME_HASH]}*")
    return next((path.name for path in found if path.name[0] != "." and path.is_dir()), None)
