"""The forward pass of an extraction: pending shards of one or several layers, block by block.

Reading and resizing run ahead of the forward pass in threads, writing behind it; the backbone never
waits for a disk that keeps up. Batches never cross a shard, so a resumed extraction forms the same
batches as an unbroken one, and so the same bytes on the same device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from emcache.ahead import run_ahead
from emcache.cache.blocks import READ_AHEAD, Block, Layer, read_of
from emcache.cache.encoding import BASIS_FILE
from emcache.cache.feature_set import PARTIAL_SUFFIX, FeatureSet
from emcache.cache.recipe import Shard
from emcache.cache.shard_work import compute_shard, shard_work
from emcache.cache.writer import FeatureSetWriter
from emcache.cluster.pool import Pool
from emcache.errors import StoreError
from emcache.models.backbones.base import Backbone
from emcache.progress import Reporter, Task
from emcache.storage.records import new_record_id


def compute_layers(
    layers: Sequence[Layer],
    backbone: Backbone | None,
    reporter: Reporter,
    extraction: Mapping[str, Any] | None = None,
    pool: Pool | None = None,
) -> list[FeatureSet]:
    """Read, resize, hash and compute what is pending, and write the feature set of each layer.

    Args:
        layers: What to make, of the same slices.
        backbone: On the jobs' device; None where every slice is donated, or workers have their own.
        reporter: Receives progress: every batch.
        extraction: What manifests say of how they came about; None for what is made now.
        pool: Workers that compute; None for this process.

    Raises:
        StoreError: A slice changed while it was being read, or its tokens are not finite.
        ClusterError: Workers are gone.
    """
    outputs = []
    for layer in layers:
        job = layer.job
        partial = job.workspace.cache / (job.name + PARTIAL_SUFFIX)
        writer = FeatureSetWriter(partial, job.places, job.stored_dim, job.recipe.dtype)
        if job.basis is not None and not (partial / BASIS_FILE).exists():
            job.basis.save(partial / BASIS_FILE)
        done = len(job.places) - sum(len(shard.positions) for shard in writer.pending)
        if done:
            reporter.say(f"Resuming {job.name}: {done} of {len(job.places)} slices are done.")
        outputs.append(_Output(layer, writer))
    pending = _find_pending(outputs)
    total = sum(len(each.shard.positions) for each in pending)
    if total:
        with reporter.task(f"Extracting {layers[0].job.selection}", total, "slices") as task:
            alone = pending
            if pool is not None:
                # What older feature sets hold is quicker to copy than to ask for.
                shared = [each for each in pending if each.block().to_compute]
                asked = {each.shard for each in shared}
                alone = [each for each in pending if each.shard not in asked]
                _share(shared, pool, task)
            if alone:
                _fill(outputs, alone, backbone, task)
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


@dataclass(frozen=True, slots=True)
class _Pending:
    """A shard that some layers lack."""

    outputs: Sequence[_Output]
    shard: Shard

    @property
    def tokens(self) -> int:
        """Of all its slices."""
        rows, columns = self.shard.grid
        return rows * columns * len(self.shard.positions)

    def block(self) -> Block:
        """The shard, to be gathered."""
        return Block([output.layer for output in self.outputs], self.shard)


def _find_pending(outputs: Sequence[_Output]) -> list[_Pending]:
    # The layers have the same shards. After a kill, some of them may have one more.
    found = (
        _Pending([output for output in outputs if output.writer.lacks(shard)], shard)
        for shard in outputs[0].writer.shards
    )
    return [each for each in found if each.outputs]


def _fill(
    outputs: Sequence[_Output],
    pending: Sequence[_Pending],
    backbone: Backbone | None,
    task: Task,
) -> None:
    """Write pending shards in this process."""
    job = outputs[0].layer.job
    blocks = [each.block() for each in pending]
    writing: list[Future[None]] = []
    with (
        ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)), "read") as readers,
        ThreadPoolExecutor(1, "write") as writers,
    ):
        images = run_ahead(
            readers,
            [read_of(job, position) for block in blocks for position in block.to_compute],
            READ_AHEAD * job.batch,
        )
        try:
            for each, block in zip(pending, blocks, strict=True):
                contents = block.gather(backbone, images, task.advance)
                for earlier in writing:
                    earlier.result()
                writing = [
                    writers.submit(output.writer.write, each.shard, content)
                    for output, content in zip(each.outputs, contents, strict=True)
                ]
            for last in writing:
                last.result()
        except BaseException:
            readers.shutdown(wait=False, cancel_futures=True)
            raise


def _share(pending: Sequence[_Pending], pool: Pool, task: Task) -> None:
    """Have workers write pending shards, those first that take longest: all end at about once."""
    pending = sorted(pending, key=lambda each: each.tokens, reverse=True)
    outputs = {each.shard: each.outputs for each in pending}
    works = (shard_work([o.layer for o in each.outputs], each.shard) for each in pending)
    for outcome in pool.run(compute_shard, works):
        if outcome.value is None:
            raise outcome.problem or StoreError("a worker sent nothing back; run it again.")
        shard = outcome.item.shard
        for output, written in zip(outputs[shard], outcome.value, strict=True):
            output.writer.count(shard, written)
        task.advance(len(shard.positions))
