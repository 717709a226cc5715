"""A shard as a piece of work for another process: what it is told, and what it does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from emcache.ahead import run_ahead
from emcache.cache.blocks import READ_AHEAD, Block, Layer, read_of
from emcache.cache.feature_set import PARTIAL_SUFFIX
from emcache.cache.find import Donors, donors_of
from emcache.cache.job_backbone import load_job_backbone
from emcache.cache.plan import Job
from emcache.cache.recipe import Shard
from emcache.cache.shards import Written, write_shard
from emcache.errors import StoreError
from emcache.freed import kept_memory
from emcache.models.backbones.base import BackboneModule
from emcache.models.device import advise_on_memory
from emcache.progress import Quiet


@dataclass(frozen=True, slots=True)
class ShardWork:
    """What a worker needs to know to write a shard."""

    jobs: tuple[Job, ...]
    """Of each layer that lacks the shard, with the shard's slices alone."""
    shard: Shard
    """Its positions are those in the whole feature set."""
    donated: bool
    """Whether older feature sets hold some of it."""


def shard_work(layers: Sequence[Layer], shard: Shard) -> ShardWork:
    """What a worker is told of a shard.

    Args:
        layers: Those that lack it.
        shard: Which.
    """
    donated = any(layer.job.places[p] in layer.donors for layer in layers for p in shard.positions)
    return ShardWork(tuple(layer.job.part(shard.positions) for layer in layers), shard, donated)


def compute_shard(work: ShardWork) -> list[Written]:
    """Write a shard of each layer; several processes may do so at once.

    Raises:
        StoreError: A slice changed while it was being read, or its tokens are not finite.
        WeightsError: The weights are not there, or others.
    """
    first = work.jobs[0]
    layers = [
        Layer(
            job,
            donors_of(job) if work.donated else Donors({}),
        )
        for job in work.jobs
    ]
    own = Shard(work.shard.grid, work.shard.number, tuple(range(len(work.shard.positions))))
    block = Block(layers, own)
    backbone = _backbone(first)
    advice = "use a smaller --batch or --longest-edge"
    with (
        ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)), "read") as readers,
        kept_memory(),
        advise_on_memory(StoreError, "the backbone", advice),
    ):
        readings = [read_of(first, position) for position in block.to_compute]
        images = run_ahead(readers, readings, READ_AHEAD * first.batch)
        contents = block.gather(backbone, images, Quiet().task("Shard", 0, "slices").advance)
    return [
        write_shard(job.workspace.cache / (job.name + PARTIAL_SUFFIX), work.shard, content)
        for job, content in zip(work.jobs, contents, strict=True)
    ]


_Key = tuple[str, str, str | None, str]
_kept: dict[_Key, BackboneModule] = {}


def _backbone(job: Job) -> BackboneModule:
    """The job's backbone; the one that this process had last is kept."""
    adapter = None if job.adapter is None else job.adapter.sha256
    key = (job.spec.name, job.weights.sha256, adapter, str(job.device))
    if key not in _kept:
        # One at a time: two large ones may not fit.
        _kept.clear()
        _kept[key] = load_job_backbone(job, Quiet())
    return _kept[key]
