"""Extraction against the bare forward passes in it, and the size of what it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import torch

from emcache.cache.blocks import Layer
from emcache.cache.compute import compute_layers
from emcache.cache.find import Donors
from emcache.cache.inputs import normalise, training_image
from emcache.freed import kept_memory
from emcache.models.arithmetic import Precision, autocast
from emcache.models.loading import load_backbone
from emcache.progress import Quiet
from emcache_bench.ratio import Measurement, Target, is_settled, of_rounds
from emcache_bench.setting import MadeUpData, Setting
from emcache_bench.timing import Rounds, interleave, quotients

_SIDE = 1024
_ALMOST_ALL = Target(0.95, at_least=True)


def measure_extraction(setting: Setting) -> Iterator[Measurement]:
    """Slices of 1024 x 1024 pixels at the default size; if it must be quick, smaller ones.

    These are as much smaller as the size is: reading must not become a larger part of the work.
    """
    device = setting.device
    # Several batches, so that reading and computing overlap; on a GPU several shards, so that
    # writing does too: a CPU takes minutes for one.
    few, many, batch = (4, 32, 1) if device.type == "cpu" else (64, 128, 4)
    side, edge, slices = (_SIDE // 2, 518, 8) if setting.quick else (_SIDE, 1022, few)
    rounds = setting.rounds(3, 12)
    folder = setting.folder / "extraction"
    yield _share(MadeUpData(folder, slices, side, edge, device, batch=batch), rounds, _ALMOST_ALL)
    if not setting.quick:
        small = MadeUpData(setting.folder / "small", many, _SIDE, 266, device)
        yield _share(small, rounds, None)


def measure_size(setting: Setting) -> Iterator[Measurement]:
    """Bytes on disk of a feature set with its labels."""
    for edge in (266,) if setting.quick else (266, 1022):
        data = MadeUpData(setting.folder / f"size-{edge}", 4, edge, edge, setting.device)
        feature_set = data.features.feature_set
        total = sum(path.stat().st_size for path in feature_set.folder.rglob("*") if path.is_file())
        yield of_rounds(
            f"feature-set-bytes-{edge}",
            f"bytes of a feature set with labels / bytes of its float16 tokens, {edge} px, D = 384",
            [total / feature_set.token_bytes],
            Target(1.05, at_least=False),
            {},
            device=setting.device.type,
        )


def _share(data: MadeUpData, rounds: Rounds, target: Target | None) -> Measurement:
    job = data.job
    backbone = load_backbone(job.spec, job.weights, job.device)
    patch = job.spec.patch
    images = [
        torch.from_numpy(
            training_image(item, (place.grid[0] * patch, place.grid[1] * patch), job.greys)
        )
        for item, place in zip(job.slices, job.places, strict=True)
    ]

    def forward() -> None:
        with torch.inference_mode(), autocast(job.device, Precision(job.recipe.precision)):
            for start in range(0, len(images), job.batch):
                pixels = torch.stack(images[start : start + job.batch]).to(job.device)
                np.asarray(backbone(normalise(pixels)).cls.float().cpu())

    made: list[int] = []

    def extract() -> None:
        shutil.rmtree(job.workspace.cache, ignore_errors=True)
        job.workspace.cache.mkdir(parents=True)
        made.append(len(compute_layers([Layer(job, Donors({}))], backbone, Quiet())[0].slices))

    with kept_memory():
        times = interleave(
            {"forward": forward, "extraction": extract},
            rounds,
            job.device,
            lambda times: is_settled([(quotients(times["forward"], times["extraction"]), target)]),
        )
    return of_rounds(
        f"extraction-{data.edge}",
        f"forward passes on slices in memory / extraction, {data.side} px slices at {data.edge} px",
        quotients(times["forward"], times["extraction"]),
        target,
        times,
        device=data.device.type,
        sound=set(made) == {len(images)},
    )
