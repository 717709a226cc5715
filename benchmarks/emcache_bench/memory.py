"""Training from a feature set ten times as large as the memory that the process may have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from emcache.cache.labels import ensure_labels
from emcache.cache.recipe import place_slices
from emcache.cache.shards import ShardTokens
from emcache.cache.writer import FeatureSetWriter
from emcache.data.dataset import Slice
from emcache.progress import Quiet
from emcache.training.batches import LabelledFeatures
from emcache_bench.ratio import Measurement, Target, of_rounds
from emcache_bench.setting import MadeUpData, Setting
from emcache_bench.timing import in_turn, quotients
from emcache_bench.workers import Worker

TIMES = 10
"""How often the limit goes into the feature set."""

_EDGE = 126
_DIM = 1536
_LIMIT = 384 << 20
_MOST_OF_IT = Target(0.8, at_least=True)


def measure_memory(setting: Setting) -> Iterator[Measurement]:
    """Steps from disk under the limit, against steps on examples in memory without one.

    Nothing where the system cannot limit a process's own memory as Linux does, and nothing where it
    must be quick: the feature set takes 3.8 GiB of disk.
    """
    if not sys.platform.startswith("linux") or setting.quick:
        return
    features = oversized_features(setting.folder / "memory", _LIMIT, _EDGE, _DIM)
    times, sound = steps_under_limit(features, _LIMIT, setting.rounds().least)
    yield of_rounds(
        "limited-memory",
        f"steps on examples in memory / steps with --resident disk, the process's own memory "
        f"limited to {_LIMIT >> 20} MiB, the feature set {TIMES} times that",
        quotients(times["ram"], times["disk"]),
        _MOST_OF_IT,
        {"in memory": times["ram"], "limited": times["disk"]},
        note="" if sound else "the two sides had different losses",
        sound=sound,
    )


def steps_under_limit(
    features: LabelledFeatures, limit: int, rounds: int
) -> tuple[dict[str, list[float]], bool]:
    """Seconds of some steps of the study's head, in turns, without a limit and under one.

    Every round makes its steps on slices of its own, from all over the feature set.

    Args:
        features: What to train on.
        limit: Bytes of memory of its own that the limited process may have beside what its
            libraries take.
        rounds: That count; one more goes before.

    Returns:
        ``ram`` and ``disk``: seconds of each round; and whether all losses of the two were equal.
    """
    ways = {"ram": 0, "disk": limit}
    times: dict[str, list[float]] = {way: [] for way in ways}
    sound = True
    labels = features.labels.key
    with ExitStack() as stack:
        workers = {
            way: stack.enter_context(
                Worker(
                    "emcache_bench.memory_worker",
                    way,
                    features.feature_set.folder,
                    labels,
                    bound,
                    rounds + 1,
                )
            )
            for way, bound in ways.items()
        }
        for number in range(-1, rounds):
            answers = {way: workers[way].ask() for way in in_turn(workers, number)}
            sound &= answers["ram"]["losses"] == answers["disk"]["losses"]
            if number >= 0:
                for way, answer in answers.items():
                    times[way].append(answer["seconds"])
    return times, sound


def oversized_features(folder: Path, limit: int, edge: int, dim: int) -> LabelledFeatures:
    """A feature set of random tokens, :data:`TIMES` times as large as the limit, with labels.

    Args:
        folder: Where; made.
        limit: In bytes.
        edge: Of a slice.
        dim: Channels of a token.
    """
    data = MadeUpData(folder / "few", 2, edge, edge, torch.device("cpu"), "tiny")
    one, grid = data.job.slices[0], data.job.places[0].grid
    count = -(-TIMES * limit // (grid[0] * grid[1] * dim * 2))
    slices: list[Slice] = [replace(one, id=str(number)) for number in range(count)]
    places = place_slices([item.id for item in slices], [one.pixel_sha256] * count, [grid] * count)
    writer = FeatureSetWriter(folder / "made-up.partial", places, dim, "float16")
    # The same numbers in every shard: making new ones would take longer than all else.
    most = max(len(shard.positions) for shard in writer.pending)
    random = np.random.default_rng(0)
    tokens = random.standard_normal((most, *grid, dim), dtype=np.float32).astype(np.float16)
    pooled = tokens.mean(axis=(1, 2), dtype=np.float32)
    for shard in writer.pending:
        n = len(shard.positions)
        writer.write(shard, ShardTokens(tokens[:n], {"pooled": pooled[:n], "cls": pooled[:n]}, 0.0))
    feature_set = writer.finish(
        folder / "made-up",
        {
            "fingerprint": "made up",
            "recipe": data.job.recipe.identity(),
            "recipe_sha256": "made up",
            "description": {**data.job.description(), "dim": dim},
            "extraction": {"record_id": "made-up"},
        },
    )
    labels = ensure_labels(feature_set, slices, data.job.dataset.classes, Quiet())
    return LabelledFeatures(feature_set, labels)
