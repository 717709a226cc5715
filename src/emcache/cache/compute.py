"""The forward pass of an extraction: pending shards of one or several layers, block by block.

Reading and resizing run ahead of the forward pass in threads, writing behind it; the backbone never
waits for a disk that keeps up. Batches never cross a shard, so a resumed extraction forms the same
batches as an unbroken one, and so the same bytes on the same device.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from emcache.cache.feature_set import PARTIAL_SUFFIX, FeatureSet
from emcache.cache.find import Donors
from emcache.cache.inputs import normalise, training_image
from emcache.cache.plan import Job
from emcache.cache.recipe import Shard
from emcache.cache.writer import FeatureSetWriter
from emcache.errors import StoreError
from emcache.models.backbones.base import Backbone, Features, shifted_layers
from emcache.models.device import Precision, autocast
from emcache.progress import Reporter
from emcache.storage.records import new_record_id

_READ_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a pass: the job that wants it, and what older feature sets hold of it."""

    job: Job
    donors: Donors

    @property
    def copied(self) -> int:
        """Slices whose tokens older feature sets hold."""
        return sum(item in self.donors for item in self.job.places)


def compute_layers(
    layers: Sequence[Layer],
    backbone: Backbone | None,
    reporter: Reporter,
    extraction: Mapping[str, Any] | None = None,
) -> list[FeatureSet]:
    """Read, resize, hash and compute what is pending, and write the feature set of each layer.

    Args:
        layers: What to make, of the same slices.
        backbone: On the jobs' device; None where every slice is donated.
        reporter: Receives progress: every batch.
        extraction: What manifests say of how they came about; None for what is made now.

    Raises:
        StoreError: A slice changed while it was being read, or its tokens are not finite.
    """
    outputs = []
    for layer in layers:
        job = layer.job
        partial = job.workspace.cache / (job.name + PARTIAL_SUFFIX)
        writer = FeatureSetWriter(partial, job.places, job.spec.dim, job.recipe.dtype)
        done = len(job.places) - sum(len(shard.positions) for shard in writer.pending)
        if done:
            reporter.say(f"Resuming {job.name}: {done} of {len(job.places)} slices are done.")
        outputs.append(_Output(layer, writer))
    _fill(outputs, backbone, reporter)
    return [output.finish(extraction) for output in outputs]


@dataclass(frozen=True, slots=True)
class _Output:
    """A layer with the feature set that is being written."""

    layer: Layer
    writer: FeatureSetWriter

    def finish(self, extraction: Mapping[str, Any] | None) -> FeatureSet:
        """Complete it."""
        job, copied = self.layer.job, self.layer.copied
        return self.writer.finish(
            job.workspace.cache / job.name,
            {
                "fingerprint": job.fingerprint,
                "recipe": job.recipe.identity(),
                "recipe_sha256": job.recipe.sha256(),
                "description": job.description(),
                "extraction": extraction
                or {
                    "record_id": new_record_id("extract"),
                    "n_computed": len(job.places) - copied,
                    "n_copied": copied,
                    "compute_seconds": self.writer.seconds,
                },
            },
        )


def _fill(outputs: Sequence[_Output], backbone: Backbone | None, reporter: Reporter) -> None:
    """Write every pending shard of every layer."""
    job = outputs[0].layer.job
    # The layers have the same shards. After a kill, some of them may have one more.
    pending = [s for s in outputs[0].writer.shards if any(s in o.writer.pending for o in outputs)]
    blocks = [_Block(outputs, shard) for shard in pending]
    total = sum(len(shard.positions) for shard in pending)
    if not total:
        return
    writing: list[Future[None]] = []
    with (
        reporter.task(f"Extracting {job.selection}", total, "slices") as task,
        ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)), "read") as readers,
        ThreadPoolExecutor(1, "write") as writers,
    ):
        images = _read_ahead(
            readers,
            [_reader(job, position) for block in blocks for position in block.to_compute],
            _READ_AHEAD * job.batch,
        )
        try:
            for block in blocks:
                started = time.perf_counter()
                block.copy()
                task.advance(len(block.shard.positions) - len(block.to_compute))
                if backbone is not None:
                    block.compute(backbone, images, task.advance)
                for earlier in writing:
                    earlier.result()
                seconds = (time.perf_counter() - started) / len(block.parts)
                writing = [writers.submit(part.write, seconds) for part in block.parts]
                block.parts = []
            for last in writing:
                last.result()
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            raise


class _Part:
    """The tokens of one layer of a shard, being gathered."""

    def __init__(self, output: _Output, shard: Shard) -> None:
        count, (rows, columns), job = len(shard.positions), shard.grid, output.layer.job
        self.job = job
        self._output = output
        self._shard = shard
        self._tokens: Float[np.ndarray, "slice row col channel"] = np.empty(
            (count, rows, columns, job.spec.dim), dtype=job.recipe.dtype
        )
        self._pooled: Float32[np.ndarray, "slice channel"] = np.empty(
            (count, job.spec.dim), np.float32
        )
        self._cls: Float32[np.ndarray, "slice channel"] = np.empty_like(self._pooled)

    def copy(self, place: int) -> None:
        """Take a slice that an older feature set holds."""
        donated = self._output.layer.donors.read(self.job.places[self._shard.positions[place]])
        self._tokens[place] = donated.tokens
        self._pooled[place] = donated.pooled
        self._cls[place] = donated.cls

    def put(self, places: Sequence[int], features: Features) -> None:
        """Take what the backbone makes of some slices."""
        grid = features.tokens.permute(0, 2, 3, 1).float()
        stored = grid.to(getattr(torch, self.job.recipe.dtype)).cpu()
        self._check_finite(stored, places)
        self._tokens[places] = stored.numpy()
        self._pooled[places] = grid.mean(dim=(1, 2)).cpu().numpy()
        self._cls[places] = features.cls.float().cpu().numpy()

    def write(self, seconds: float) -> None:
        """Write the whole shard."""
        self._output.writer.write(self._shard, self._tokens, self._pooled, self._cls, seconds)

    def _check_finite(self, stored: torch.Tensor, places: Sequence[int]) -> None:
        finite = stored.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            bad = places[int((~finite).nonzero()[0])]
            slice_id = self.job.places[self._shard.positions[bad]].id
            raise StoreError(
                f"the tokens of slice {slice_id} are not finite in {self.job.recipe.dtype}; "
                f"extract with --dtype float32 or --precision float32.",
                subject=slice_id,
            )


class _Block:
    """A shard of slices, in every layer that lacks it."""

    def __init__(self, outputs: Sequence[_Output], shard: Shard) -> None:
        self.shard = shard
        self._outputs = [output for output in outputs if shard in output.writer.pending]
        self._missing = [
            place
            for place, position in enumerate(shard.positions)
            if not all(o.layer.job.places[position] in o.layer.donors for o in self._outputs)
        ]
        self.parts: list[_Part] = []
        """Filled by :meth:`copy` and :meth:`compute`."""

    @property
    def to_compute(self) -> list[int]:
        """Positions of the slices that must go through the backbone."""
        return [self.shard.positions[place] for place in self._missing]

    def copy(self) -> None:
        """Make room, and take the slices that older feature sets hold of every layer."""
        self.parts = [_Part(output, self.shard) for output in self._outputs]
        for place in range(len(self.shard.positions)):
            if place not in self._missing:
                for part in self.parts:
                    part.copy(place)

    def compute(
        self,
        backbone: Backbone,
        images: Iterator[UInt8[np.ndarray, "row col"]],
        advance: Callable[[int], None],
    ) -> None:
        """Run the backbone over the others, batch by batch."""
        job, names = self.parts[0].job, [part.job.recipe.layer for part in self.parts]
        for start in range(0, len(self._missing), job.batch):
            places = self._missing[start : start + job.batch]
            pixels = torch.from_numpy(np.stack([next(images) for _ in places])).to(job.device)
            with torch.inference_mode(), autocast(job.device, Precision(job.recipe.precision)):
                layers = shifted_layers(backbone, normalise(pixels), names, job.recipe.shift)
            for part, features in zip(self.parts, layers, strict=True):
                part.put(places, features)
            advance(len(places))


def _reader(job: Job, position: int) -> Callable[[], UInt8[np.ndarray, "row col"]]:
    rows, columns = job.places[position].grid
    size = (rows * job.pitch, columns * job.pitch)
    return lambda: training_image(job.slices[position], size, job.greys)


def _read_ahead(
    pool: ThreadPoolExecutor,
    readers: Sequence[Callable[[], UInt8[np.ndarray, "row col"]]],
    depth: int,
) -> Iterator[UInt8[np.ndarray, "row col"]]:
    """Results in order, with at most ``depth`` of them waiting."""
    waiting: deque[Future[UInt8[np.ndarray, "row col"]]] = deque()
    for reader in readers:
        waiting.append(pool.submit(reader))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
