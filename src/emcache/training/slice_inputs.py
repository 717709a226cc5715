"""What networks without a backbone read: the slices themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor
from typing_extensions import override

from emcache.cache.inputs import standardise
from emcache.cache.labels import label_key
from emcache.cache.recipe import LAST, Grid
from emcache.data.resize import Preprocessing
from emcache.data.tiles import preprocessing_with
from emcache.errors import UsageError
from emcache.storage.hashing import json_sha256
from emcache.training.batches import PixelReader, SizedSlice
from emcache.training.inputs import Inputs, InputsRequest
from emcache.training.protocol import Protocol
from emcache.training.sampling import Source

NO_BACKBONE = "none"
"""What stands for the backbone of a run that has none, and for its weights."""

PATCH = 14
"""Slices have whole patches of this edge along each side, as those of DINOv2 have: the same pixels
are scored."""

_SMALLEST = 32


class SliceReader(PixelReader):
    """Slices at training size, for networks that read them in one channel."""

    @override
    def inputs(
        self, values: Shaped[Tensor, "batch row col *channel"]
    ) -> Float[Tensor, "batch depth row col"]:
        """One channel of mean 0 and deviation 1 in each slice."""
        return standardise(values)


@dataclass(frozen=True, slots=True)
class SliceNetwork:
    """Which network reads the slices."""

    name: str = NO_BACKBONE
    """What stands for its backbone."""
    weights: str = NO_BACKBONE
    weights_sha256: str = NO_BACKBONE
    in_colour: bool = False
    """Whether it reads three normalised channels, not one that is standardised."""


def plan_slices(request: InputsRequest, network: SliceNetwork = SliceNetwork()) -> Inputs:
    """The slices of every source at their training size; nothing is read from the cache.

    Args:
        request: Which slices, and at what size.
        network: What reads them; one that is trained from scratch has neither name nor weights.

    Raises:
        UsageError: Slices that are too small, or a protocol that speaks of tokens.
    """
    _check_protocol(request.protocol)
    features, sources = request.features, request.sources.items
    grids: list[tuple[Grid, ...]] = []
    keys, fingerprints = [], []
    recipe: dict[str, Any] = {}
    for source in sources:
        preprocessing = preprocessing_with(
            features.tiling,
            features.greys,
            PATCH,
            features.longest_edge,
            features.pixel_size_nm,
            source.dataset,
        )
        recipe = slice_recipe(preprocessing, network)
        own = tuple(_grid(preprocessing, source, item.height, item.width) for item in source.slices)
        grids.append(own)
        keys.append(label_key(source.slices, source.dataset.classes, recipe["preprocessing"], own))
        hashes = [item.pixel_sha256 for item in source.slices]
        fingerprints.append(json_sha256({"recipe": recipe, "slices": hashes, "grids": own}))
    description = {
        "backbone": network.name,
        "weights": network.weights,
        "weights_sha256": network.weights_sha256,
        "longest_edge": preprocessing.longest_edge,
        "pixel_size_nm": preprocessing.pixel_size_nm,
        "patch": PATCH,
        "dim": 3 if network.in_colour else 1,
    }
    slices = [
        SizedSlice(item, grid, source.dataset.classes)
        for source, own in zip(sources, grids, strict=True)
        for item, grid in zip(source.slices, own, strict=True)
    ]
    reader = PixelReader if network.in_colour else SliceReader
    return Inputs(
        description,
        recipe,
        tuple(fingerprints),
        tuple(keys),
        tuple(grids),
        (),
        None,
        lambda _: reader(slices, PATCH, features.greys),
    )


def slice_recipe(preprocessing: Preprocessing, network: SliceNetwork) -> dict[str, Any]:
    """How the network's inputs are made of slices, as records and keys hold it."""
    return {
        "backbone": network.name,
        **({"weights_sha256": network.weights_sha256} if network.in_colour else {}),
        "preprocessing": preprocessing.identity(),
        "precision": "float32",
        "dtype": "float32",
    }


def _grid(preprocessing: Preprocessing, source: Source, height: int, width: int) -> Grid:
    grid = preprocessing.grid_of(height, width)
    if (edge := min(grid) * PATCH) < _SMALLEST:
        raise UsageError(
            f"slices of {source.dataset.name} are {edge} px along their shorter edge when they are "
            f"trained on, and the network needs {_SMALLEST}; choose a larger --longest-edge.",
            subject=source.dataset.name,
        )
    return grid


def _check_protocol(protocol: Protocol) -> None:
    of_tokens: Sequence[tuple[str, object, object]] = (
        ("tokens", protocol.tokens, "patch"),
        ("layers", protocol.layers, LAST),
        ("align", protocol.align, "none"),
        ("penalty", protocol.penalty, "none"),
    )
    for name, found, default in of_tokens:
        if found != default:
            raise UsageError(
                f"{protocol.head} reads slices and has no tokens, and {name} is {found}; leave it "
                f"out.",
                subject=name,
            )
