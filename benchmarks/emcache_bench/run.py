"""Running benchmarks and keeping what they found."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from emcache.errors import UsageError
from emcache.models.device import pick_device
from emcache.progress import Reporter
from emcache.storage.records import Record, new_record
from emcache.storage.workspace import Workspace
from emcache_bench.distance import measure_frechet
from emcache_bench.epochs import measure_epochs
from emcache_bench.extraction import measure_extraction, measure_size
from emcache_bench.floor import measure_floor
from emcache_bench.growth import GrowthPoint, growth_of_library, growth_ratios
from emcache_bench.head_step import measure_head_steps
from emcache_bench.lora_split import measure_lora_split
from emcache_bench.memory import measure_memory
from emcache_bench.ratio import Measurement
from emcache_bench.setting import Setting

KIND = "bench"

Measure = Callable[[Setting], Iterable[Measurement]]
Grow = Callable[[Setting], Iterable[GrowthPoint]]

_TIMES = pl.List(pl.Struct({"what": pl.String, "seconds": pl.List(pl.Float64)}))


@dataclass(frozen=True, slots=True)
class Suite:
    """Benchmarks by name, of the library and of what stands on it."""

    measures: Mapping[str, Measure]
    """Each gives one ratio or several."""
    on_devices: frozenset[str]
    """Those that are measured on a GPU too, where there is one."""
    growth: Sequence[Grow]
    """Times of stages against the number of slices."""


GROWTH = "growth"
"""Name of the benchmark that all of a suite's growth makes."""

LIBRARY = Suite(
    {
        "head-step": measure_head_steps,
        "floor": measure_floor,
        "epochs": measure_epochs,
        "lora-split": measure_lora_split,
        "extraction": measure_extraction,
        "size": measure_size,
        "memory": measure_memory,
        "frechet": measure_frechet,
    },
    frozenset({"head-step", "floor", "epochs", "lora-split", "extraction"}),
    (growth_of_library,),
)
"""What the library itself has to measure."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What the user may choose."""

    quick: bool = False
    only: Sequence[str] = ()
    """Names of benchmarks; none means all."""
    device: str = "auto"
    """``auto``: the CPU, and a GPU where there is one."""


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What was found."""

    measurements: tuple[Measurement, ...]
    growth: tuple[GrowthPoint, ...]
    record: Record | None
    """None where there is no workspace to keep it."""


def run_benchmarks(
    workspace: Workspace | None, suite: Suite, options: BenchOptions, reporter: Reporter
) -> BenchResult:
    """Measure, in scratch space; keep the result as a record.

    Args:
        workspace: Where to keep the record, or None.
        suite: What there is to measure.
        options: What of it.
        reporter: Receives progress: every benchmark.

    Raises:
        UsageError: An unknown benchmark or device, or benchmarks that measure nothing so.
    """
    names = _chosen(suite, options.only)
    devices = _devices(options.device)
    measurements: list[Measurement] = []
    growth: list[GrowthPoint] = []
    with (
        tempfile.TemporaryDirectory(prefix="emcache-bench-") as folder,
        reporter.task("Benchmarks", len(names) * len(devices), "benchmarks") as task,
    ):
        for device in devices:
            setting = Setting(Path(folder) / device.type, device, options.quick, reporter)
            for name in names:
                if name == GROWTH:
                    points = _grow(suite, setting) if device is devices[0] else []
                    growth += points
                    measurements += growth_ratios(points)
                elif device is devices[0] or name in suite.on_devices:
                    measurements += suite.measures[name](setting)
                task.advance(1, name)
    if not measurements:
        how = "with --quick" if options.quick else "on this system"
        raise UsageError(
            f"{' and '.join(names)} cannot be measured {how}; known: "
            f"{', '.join((*suite.measures, GROWTH))}.",
            subject=names[0],
        )
    record = None
    if workspace is not None:
        record = _keep(workspace, options, devices, measurements, growth)
    return BenchResult(tuple(measurements), tuple(growth), record)


def machine_kind() -> str:
    """The processor as it names itself, with its cores and what it multiplies in bfloat16."""
    model = platform.processor() or platform.machine()
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = re.search(r"^model name\s*:\s*(.+)$", facts, re.MULTILINE)
        model = found[1] if found else model
    except OSError:
        pass
    units = " with AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else ""  # noqa: SLF001
    gpu = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores{units}{gpu}"


def _grow(suite: Suite, setting: Setting) -> list[GrowthPoint]:
    return [point for grow in suite.growth for point in grow(setting)]


def _chosen(suite: Suite, only: Sequence[str]) -> list[str]:
    known = [*suite.measures, GROWTH]
    for name in only:
        if name not in known:
            raise UsageError(
                f"there is no benchmark {name!r}; known: {', '.join(known)}.", subject=name
            )
    return [name for name in known if not only or name in only]


def _devices(name: str) -> list[torch.device]:
    if name != "auto":
        return [pick_device(name)]
    best = pick_device("auto")
    cpu = torch.device("cpu")
    return [cpu, best] if best.type == "cuda" else [cpu]


def _keep(
    workspace: Workspace,
    options: BenchOptions,
    devices: Sequence[torch.device],
    measurements: Iterable[Measurement],
    growth: Iterable[GrowthPoint],
) -> Record:
    with new_record(workspace.runs, KIND) as draft:
        draft.config = {
            "quick": options.quick,
            "only": list(options.only),
            "devices": [device.type for device in devices],
            "machine": machine_kind(),
        }
        draft.write_table("benchmarks.parquet", _frame(m.as_row() for m in measurements))
        points = pl.DataFrame(
            [point.as_row() for point in growth],
            {"stage": pl.String, "n_slices": pl.Int64, "seconds": pl.Float64},
        )
        draft.write_table("benchmark_growth.parquet", points)
        return draft.finish()


def _frame(rows: Iterator[Mapping[str, Any]]) -> pl.DataFrame:
    text = dict.fromkeys(("name", "target", "verdict", "unit", "device", "question", "note"))
    return pl.DataFrame(
        list(rows),
        schema_overrides={
            **dict.fromkeys(text, pl.String),
            **dict.fromkeys(("ratio", "low", "high"), pl.Float64),
            "times": _TIMES,
        },
        infer_schema_length=None,
    )
