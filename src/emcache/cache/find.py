"""Which feature set a command means, and which ones hold the tokens of a slice already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Shaped

from emcache.cache.encoding import Basis, Encoding
from emcache.cache.feature_set import FeatureSet, first_damage, list_feature_sets
from emcache.cache.plan import ExtractOptions, Job
from emcache.cache.recipe import LAST, Recipe, StoredSlice
from emcache.data.dataset import Dataset
from emcache.data.greys import GreyRule
from emcache.data.resize import preprocessing_of
from emcache.data.tiling import Tiling, tiling_of
from emcache.errors import StoreError, UsageError
from emcache.models.backbones.registry import find_backbone
from emcache.models.weights import PRETRAINED, find_workspace_weights, is_untrained
from emcache.models.weights.files import is_there
from emcache.models.weights.finding import find_in_cache
from emcache.models.weights.short_names import HUB, is_file_label, read_short_names
from emcache.storage.workspace import Workspace

_FIELDS = ("backbone", "longest_edge", "pixel_size_nm", "dtype", "precision", "weights_sha256")


@dataclass(frozen=True, slots=True)
class FeatureRequest:
    """What the user said of the features; None means: whatever there is."""

    backbone: str | None = None
    weights: str | None = None
    longest_edge: int | None = None
    dtype: str | None = None
    feature_set: str | None = None
    """Name of one feature set, where the others do not tell them apart."""
    pixel_size_nm: float | None = None
    precision: str | None = None
    weights_sha256: str | None = None
    """Hash of the weights, where it is known which bytes are meant."""
    layer: str = LAST
    """Number of the block, from 1, or ``last``."""
    greys: GreyRule = GreyRule()  # noqa: RUF009 - frozen
    """What is done to greys first."""
    shift: int = 1
    """Tokens along the edge of a patch."""
    tiling: Tiling | None = None
    """How slices are cut into tiles."""
    components: int | None = None
    """Number of principal components that are stored; None for the backbone's channels."""
    basis: Basis | None = None
    """That of the components, where it is known; None for any."""

    def extract_options(self, dataset: str, device: str) -> ExtractOptions:
        """How to extract what was asked for.

        Raises:
            UsageError: No backbone was named.
        """
        if self.backbone is None:
            raise UsageError(
                f"there are no features of {dataset} as it is now, and no backbone was named; name "
                f"one with --backbone, or run `emcache extract {dataset} --backbone ...` first.",
                subject=dataset,
            )
        if self.components is not None and self.basis is None:
            raise UsageError(
                f"there are no {self.components} principal components of the tokens of {dataset}; "
                f"make them with `emcache cache convert FEATURE-SET --pca {self.components}`.",
                subject=dataset,
            )
        given = {
            "basis": self.basis,
            "weights": self.weights,
            "longest_edge": self.longest_edge,
            "dtype": self.dtype,
            "pixel_size_nm": self.pixel_size_nm,
            "precision": self.precision,
            "layer": self.layer,
            "greys": self.greys,
            "shift": self.shift,
            "tiling": self.tiling,
        }
        return ExtractOptions(
            self.backbone,
            device=device,
            **{key: value for key, value in given.items() if value is not None},  # type: ignore[arg-type]
        )


def choose_feature_set(
    workspace: Workspace, dataset: Dataset, request: FeatureRequest
) -> FeatureSet | None:
    """The one feature set of the dataset's labelled slices, as they are now, that fits the request.

    Returns:
        None where there is none.

    Raises:
        StoreError: Several fit; they are listed with what tells them apart.
        BackboneError: The named backbone is unknown.
        WeightsError: The named weights are not there.
    """
    if request.backbone is not None:
        find_backbone(request.backbone)
    hashes = [item.pixel_sha256 for item in dataset.labelled]
    fitting = [
        feature_set
        for feature_set in list_feature_sets(workspace.cache)
        if [item.pixel_sha256 for item in feature_set.slices] == hashes
        and fits(workspace, feature_set, request)
        and _of_this_scale(feature_set, dataset)
    ]
    if len(fitting) > 1:
        listed = "; ".join(
            f"--feature-set {f.name} ({f.description['backbone']}, {f.description['weights']}, "
            f"{_size_in_words(f.description)}, {f.description['dtype']} computed in "
            f"{f.description['precision']})"
            for f in fitting
        )
        raise StoreError(
            f"{len(fitting)} feature sets of {dataset.name} fit; say which one: {listed}.",
            subject=[f.name for f in fitting],
        )
    if not fitting and request.backbone is None and (damage := first_damage(workspace.cache)):
        raise damage
    if not fitting and request.feature_set is not None:
        raise StoreError(
            f"there is no feature set {request.feature_set} of {dataset.name} as it is now; leave "
            f"--feature-set out, or extract again.",
            subject=request.feature_set,
        )
    return fitting[0] if fitting else None


def fits(workspace: Workspace, feature_set: FeatureSet, request: FeatureRequest) -> bool:
    """Whether a feature set of a bare backbone is one that was asked for."""
    facts = feature_set.description
    if request.feature_set not in (None, feature_set.name):
        return False
    for name in _FIELDS:
        asked = getattr(request, name)
        if asked is not None and facts.get(name) != asked:
            return False
    made = facts.get("layer", LAST), facts.get("normalise", "none"), facts.get("shift", 1)
    if made != (request.layer, request.greys.label, request.shift):
        return False
    if tiling_of(facts) != request.tiling:
        return False
    named = request.feature_set is not None
    if facts.get("components") != request.components and not named:
        # They are another kind of tokens, which nobody gets unasked.
        return False
    if request.basis is not None and facts.get("basis_sha256") != request.basis.sha256:
        return False
    if facts.get("adapter_sha256") is not None:
        # Tokens of an adapted backbone are measured, and no head is trained on them.
        return False
    return request.weights is None or _same_weights(workspace, feature_set, request.weights)


def _of_this_scale(feature_set: FeatureSet, dataset: Dataset) -> bool:
    """Whether tokens at one physical scale are those of the dataset's own.

    The same pixels may stand in two datasets of different voxel sizes.
    """
    nanometres, patch = (
        feature_set.description.get("pixel_size_nm"),
        feature_set.description["patch"],
    )
    if nanometres is None:
        return True
    if dataset.voxel_size_nm is None:
        return False
    shift = feature_set.description.get("shift", 1)
    preprocessing = preprocessing_of(
        patch * shift, None, nanometres, dataset.voxel_size_nm, dataset.name
    )
    coarse = [preprocessing.grid_of(item.height, item.width) for item in dataset.labelled]
    grids = [(rows * shift, columns * shift) for rows, columns in coarse]
    return grids == [item.grid for item in feature_set.slices]


def _size_in_words(facts: Mapping[str, Any]) -> str:
    nanometres = facts.get("pixel_size_nm")
    return f"{facts['longest_edge']} px" if nanometres is None else f"{nanometres:g} nm a pixel"


def _same_weights(workspace: Workspace, feature_set: FeatureSet, text: str) -> bool:
    facts = feature_set.description
    spec, label, sha256 = (
        find_backbone(facts["backbone"]),
        facts["weights"],
        facts["weights_sha256"],
    )
    if text == PRETRAINED or is_untrained(text):
        # A name: `pretrained` stands for what the hub serves, and asking it would need a network;
        # hashing a seed would build a backbone.
        return bool(label == text)
    if is_file_label(text):
        return str(sha256).startswith(text.rpartition("@")[2])
    if text.startswith(HUB) and find_in_cache(text, spec) is None:
        return bool(label == text or str(label).startswith(f"{text}@"))
    if not text.startswith(HUB):
        short = read_short_names(workspace).get(text)
        if short is not None and not is_there(str(short.path)):
            # Tokens of weights that are elsewhere today are still theirs.
            return bool(short.sha256 == sha256)
        if short is None and label == text and not is_there(text):
            return True
    return bool(find_workspace_weights(workspace, text, spec).sha256 == sha256)


_Key = tuple[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Donated:
    """What an older feature set holds of one slice."""

    values: Shaped[np.ndarray, "row col channel"]
    """As the new one stores them."""
    vectors: Mapping[str, Float32[np.ndarray, "*shape"]]
    """What stands beside the tokens, by the name of its array."""


class Donors:
    """Slices by the hash of their pixels and their grid, and who holds their tokens.

    Tokens that are to be stored in fewer bytes may come from a feature set that holds them as they
    are.
    """

    def __init__(
        self,
        sources: dict[_Key, tuple[FeatureSet, int]],
        encoding: Encoding = Encoding("float16"),  # noqa: B008 - frozen
    ) -> None:
        self._sources = sources
        self._encoding = encoding
        self._vectors: dict[str, Mapping[str, Float32[np.ndarray, "slice ..."]]] = {}

    @classmethod
    def find(
        cls,
        cache: Path,
        recipe: Recipe,
        encoding: Encoding,
        slices: Iterable[StoredSlice],
    ) -> Donors:
        """Look through a cache for feature sets that hold the tokens of some of the slices.

        Args:
            cache: Where.
            recipe: Of the tokens.
            encoding: How the recipe stores them.
            slices: Which are wanted.
        """
        wanted = {_key(item) for item in slices}
        known = {recipe.sha256()}
        if not encoding.is_plain:
            # Those in float32 too: the first thing that is done to tokens is to round them.
            for dtype in ("float16", "float32"):
                known.add(replace(recipe.plain(), dtype=dtype).sha256())
        sources: dict[_Key, tuple[FeatureSet, int]] = {}
        for feature_set in list_feature_sets(cache):
            if feature_set.manifest["recipe_sha256"] in known:
                for position, item in enumerate(feature_set.slices):
                    if _key(item) in wanted:
                        sources.setdefault(_key(item), (feature_set, position))
        return cls(sources, encoding)

    def __contains__(self, item: StoredSlice) -> bool:
        return _key(item) in self._sources

    def holder(self, item: StoredSlice) -> FeatureSet:
        """The feature set that holds a slice's tokens."""
        return self._sources[_key(item)][0]

    def read(self, item: StoredSlice) -> Donated:
        """What a new feature set stores of a slice.

        Raises:
            StoreError: The older feature set is damaged.
        """
        source, position = self._sources[_key(item)]
        stored = source.stored(position)
        if source.encoding.is_plain and not self._encoding.is_plain:
            stored = self._encoding.encode(stored.values)
        scales = {name: values[0] for name, values in stored.scales.items()}
        return Donated(stored.values[0], {**self.vectors(item), **scales})

    def tokens(self, item: StoredSlice) -> Float[np.ndarray, "row col channel"]:
        """Patch tokens of a slice, as a new feature set would give them.

        Raises:
            StoreError: The older feature set is damaged.
        """
        source, position = self._sources[_key(item)]
        tokens = source.tokens(position)
        if source.encoding.is_plain and not self._encoding.is_plain:
            tokens = self._encoding.round_trip(tokens[None])[0]
        return tokens

    def vectors(self, item: StoredSlice) -> Mapping[str, Float32[np.ndarray, "*shape"]]:
        """What stands beside the tokens of a slice, which are not read themselves.

        Raises:
            StoreError: The older feature set is damaged.
        """
        source, position = self._sources[_key(item)]
        if source.name not in self._vectors:
            self._vectors[source.name] = source.vectors()
        return {name: values[position] for name, values in self._vectors[source.name].items()}


def donors_of(job: Job) -> Donors:
    """Who holds the tokens of a job's slices already."""
    return Donors.find(job.workspace.cache, job.recipe, job.encoding, job.places)


def _key(item: StoredSlice) -> _Key:
    return item.pixel_sha256, item.grid
