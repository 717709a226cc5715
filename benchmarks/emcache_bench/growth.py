"""How time grows with the number of slices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emcache.auditing.run import audit_dataset
from emcache.cache.extract import run_extraction
from emcache.models.arithmetic import Precision
from emcache.models.heads import build_head
from emcache.models.layouts import pick_layout
from emcache.progress import Quiet
from emcache.training.batches import Residency, TokenReader, open_examples
from emcache.training.protocol import Protocol
from emcache.training.sampling import chunks
from emcache.training.trainer import Trainer
from emcache_bench.ratio import Measurement, Target, of_rounds
from emcache_bench.setting import MadeUpData, Setting
from emcache_bench.timing import Work, seconds_of

_EDGE = 42
_ROUNDS = 3
_BACKBONE = "tiny"
# Linear is 1; what is left is for noise.
_LINEAR = Target(1.25, at_least=False)


@dataclass(frozen=True, slots=True)
class GrowthPoint:
    """What a stage took at one size."""

    stage: str
    n_slices: int
    seconds: float
    """The least of some rounds: whatever else the machine does can only add."""

    def as_row(self) -> dict[str, Any]:
        """A row of ``benchmark_growth.parquet``."""
        return {"stage": self.stage, "n_slices": self.n_slices, "seconds": self.seconds}


def growth_sizes(quick: bool) -> tuple[int, ...]:
    """Numbers of slices."""
    return (10, 100) if quick else (10, 100, 1000)


def growth_of_library(setting: Setting) -> Iterator[GrowthPoint]:
    """Audit, extraction and a training epoch on tiny slices and a tiny untrained backbone.

    On the CPU, whatever the setting's device: what could grow in another way works there.
    """
    device = torch.device("cpu")
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(_ROUNDS):
        for count in growth_sizes(setting.quick):
            # Each round on slices of its own: what is there already is not made again.
            folder = setting.folder / f"growth-{count}-{number}"
            for stage, work in _stages(folder, count, device).items():
                times.setdefault((stage, count), []).append(seconds_of(work, device))
            shutil.rmtree(folder)
    for (stage, count), seconds in times.items():
        yield GrowthPoint(stage, count, min(seconds))


def growth_ratios(points: Sequence[GrowthPoint]) -> Iterator[Measurement]:
    """For each stage its time per slice at the largest number against that at the one before."""
    for stage in dict.fromkeys(point.stage for point in points):
        own = sorted((p for p in points if p.stage == stage), key=lambda p: p.n_slices)
        before, last = own[-2:]
        yield of_rounds(
            f"growth-{stage.replace(' ', '-')}",
            f"{stage}: time per slice at {last.n_slices} slices / at {before.n_slices}",
            [(last.seconds / last.n_slices) / (before.seconds / before.n_slices)],
            _LINEAR,
            {f"{point.n_slices} slices": [point.seconds] for point in own},
        )


def _stages(folder: Path, count: int, device: torch.device) -> dict[str, Work]:
    data = MadeUpData(folder, count, _EDGE, _EDGE, device, _BACKBONE)
    job = data.job

    def epoch() -> None:
        positions = list(range(count))
        reader = TokenReader([data.features])
        examples, _ = open_examples(reader, device, Residency.DISK, positions)
        # The smallest head: what grows in another way than the steps would be lost in a larger one.
        head = build_head("linear", job.spec.dim, 0, layout=pick_layout(device, Precision.FLOAT32))
        trainer = Trainer(head, Protocol(), device, Precision.FLOAT32)
        trainer.train_epoch(examples.steps(chunks(positions, Protocol().batch)))

    return {
        "audit": lambda: audit_dataset(job.workspace, job.dataset, Quiet()),
        "extraction": lambda: run_extraction(job, Quiet()),
        "training epoch": epoch,
    }
