"""A shard of slices on its way through the backbone, in one or several layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8

from emcache.cache.find import Donors
from emcache.cache.inputs import normalise, training_image
from emcache.cache.plan import Job
from emcache.cache.recipe import Shard
from emcache.cache.shards import PREFIX, ShardTokens
from emcache.errors import StoreError
from emcache.models.arithmetic import Precision, autocast
from emcache.models.backbones.base import Backbone, Features, shifted_layers
from emcache.models.transfers import begin_to_fetch, stack_on

READ_AHEAD = 3
"""Batches that are read while one is computed."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a pass: the job that wants it, and what older feature sets hold of it."""

    job: Job
    donors: Donors

    @property
    def copied(self) -> int:
        """Slices whose tokens older feature sets hold."""
        return sum(item in self.donors for item in self.job.places)

    def part(self, shard: Shard) -> Layer:
        """The same for the slices of one shard."""
        return Layer(self.job.part(shard.positions), self.donors)


class _Part:
    """The tokens of one layer of a shard, being gathered."""

    def __init__(self, layer: Layer, shard: Shard) -> None:
        count, (rows, columns), job = len(shard.positions), shard.grid, layer.job
        self.job = job
        self._donors = layer.donors
        self._shard = shard
        self._tokens: Shaped[np.ndarray, "slice row col channel"] = np.empty(
            (count, rows, columns, job.stored_dim), dtype=job.recipe.dtype
        )
        self._vectors: dict[str, Float32[np.ndarray, "slice ..."]] = {}

    def copy(self, place: int) -> None:
        """Take a slice that an older feature set holds."""
        donated = self._donors.read(self.job.places[self._shard.positions[place]])
        self._tokens[place] = donated.values
        for name, vector in donated.vectors.items():
            self._put_vectors(name, [place], vector[None])

    def begin(self, places: Sequence[int], features: Features) -> Callable[[], None]:
        """Start to copy the backbone's output for some slices.

        Returns:
            A function that waits for the copy and stores it.
        """
        grid = features.tokens.permute(0, 2, 3, 1).float()
        # On the device, where tokens in half the bytes come from sooner.
        made = {
            "tokens": grid.to(getattr(torch, self.job.recipe.plain().dtype)),
            "pooled": grid.mean(dim=(1, 2)),
            "cls": features.cls.float(),
        }
        if features.prefix is not None:
            made[PREFIX] = features.prefix.float()
        fetched = begin_to_fetch(made, self.job.device)
        return lambda: self._put(places, fetched())

    def _put(self, places: Sequence[int], made: dict[str, torch.Tensor]) -> None:
        rounded = made.pop("tokens")
        self._check_finite(rounded, places)
        stored = self.job.encoding.encode(rounded.numpy())
        self._tokens[places] = stored.values
        for name, vectors in made.items():
            self._put_vectors(name, places, vectors.numpy())
        for name, scales in stored.scales.items():
            self._put_vectors(name, places, scales)

    def content(self, seconds: float) -> ShardTokens:
        """What was gathered, and what that took."""
        return ShardTokens(self._tokens, self._vectors, seconds)

    def _put_vectors(
        self, name: str, places: Sequence[int], vectors: Float32[np.ndarray, "some ..."]
    ) -> None:
        if name not in self._vectors:
            shape = (len(self._shard.positions), *vectors.shape[1:])
            self._vectors[name] = np.empty(shape, np.float32)
        self._vectors[name][places] = vectors

    def _check_finite(self, stored: torch.Tensor, places: Sequence[int]) -> None:
        finite = stored.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            bad = places[int((~finite).nonzero()[0])]
            slice_id = self.job.places[self._shard.positions[bad]].id
            dtype = self.job.recipe.plain().dtype
            raise StoreError(
                f"the tokens of slice {slice_id} are not finite in {dtype}; "
                f"extract with --dtype float32 or --precision float32.",
                subject=slice_id,
            )


class Block:
    """A shard of slices, in several layers."""

    def __init__(self, layers: Sequence[Layer], shard: Shard) -> None:
        self.shard = shard
        self._layers = layers
        self._missing = [
            place
            for place, position in enumerate(shard.positions)
            if not all(layer.job.places[position] in layer.donors for layer in layers)
        ]

    @property
    def to_compute(self) -> list[int]:
        """Positions of the slices that must go through the backbone."""
        return [self.shard.positions[place] for place in self._missing]

    def gather(
        self,
        backbone: Backbone | None,
        images: Iterator[UInt8[np.ndarray, "row col"]],
        advance: Callable[[int], None],
    ) -> list[ShardTokens]:
        """What goes into the shard of each layer.

        Args:
            backbone: On the jobs' device; None where nothing is to be computed.
            images: The slices to compute, in order, at training size.
            advance: Told of slices that are done.

        Raises:
            StoreError: A slice changed, or its tokens are not finite.
        """
        started = time.perf_counter()
        parts = [_Part(layer, self.shard) for layer in self._layers]
        missing = set(self._missing)
        for place in range(len(self.shard.positions)):
            if place not in missing:
                for part in parts:
                    part.copy(place)
        advance(len(self.shard.positions) - len(missing))
        if backbone is not None:
            self._compute(parts, backbone, images, advance)
        seconds = (time.perf_counter() - started) / len(parts)
        return [part.content(seconds) for part in parts]

    def _compute(
        self,
        parts: Sequence[_Part],
        backbone: Backbone,
        images: Iterator[UInt8[np.ndarray, "row col"]],
        advance: Callable[[int], None],
    ) -> None:
        """Run the backbone over what is missing, batch by batch."""
        job, names = parts[0].job, [part.job.recipe.layer for part in parts]
        begun: list[Callable[[], None]] = []
        for start in range(0, len(self._missing), job.batch):
            places = self._missing[start : start + job.batch]
            pixels = stack_on([torch.from_numpy(next(images)) for _ in places], job.device)
            with torch.inference_mode(), autocast(job.device, Precision(job.recipe.precision)):
                layers = shifted_layers(backbone, normalise(pixels), names, job.recipe.shift)
            ends = [
                part.begin(places, features) for part, features in zip(parts, layers, strict=True)
            ]
            # Of the batch before; a GPU is at this one meanwhile.
            for end in begun:
                end()
            begun = [*ends, partial(advance, len(places))]
        for end in begun:
            end()


def read_of(job: Job, position: int) -> Callable[[], UInt8[np.ndarray, "row col"]]:
    """What reads the slice at a position, at training size."""
    rows, columns = job.places[position].grid
    size = (rows * job.pitch, columns * job.pitch)
    return lambda: training_image(job.slices[position], size, job.greys)
