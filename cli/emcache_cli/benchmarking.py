"""Every benchmark there is, those of the command line included."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emcache_bench.of_warehouse import growth_of_warehouse, measure_ingest, measure_leaderboard
from emcache_bench.ratio import Measurement, Target, is_settled, of_rounds
from emcache_bench.run import LIBRARY, BenchOptions, BenchResult, Suite, run_benchmarks
from emcache_bench.setting import Setting
from emcache_bench.timing import Times, interleave, quotients

from emcache.errors import WorkspaceError
from emcache.progress import Reporter
from emcache.storage.workspace import find_workspace
from emcache_cli.options import Format


def measure_help(setting: Setting) -> Iterator[Measurement]:
    """``emcache --help`` against the import of its command-line library."""

    def process(code: str) -> None:
        command = [sys.executable, "-c", code]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - our own code

    target = Target(4.0, at_least=False)

    def ratios(times: Times) -> list[float]:
        return quotients(times["emcache --help"], times["import typer"])

    times = interleave(
        {
            "emcache --help": lambda: process(
                "import sys; from emcache_cli.main import main; sys.argv[1:] = ['--help']; main()"
            ),
            "import typer": lambda: process("import typer"),
        },
        setting.rounds(),
        setting.device,
        lambda times: is_settled([(ratios(times), target)]),
    )
    yield of_rounds(
        "help",
        "emcache --help / import typer",
        ratios(times),
        target,
        times,
    )


SUITE = Suite(
    {
        "help": measure_help,
        **LIBRARY.measures,
        "ingest": measure_ingest,
        "leaderboard": measure_leaderboard,
    },
    LIBRARY.on_devices,
    (*LIBRARY.growth, growth_of_warehouse),
)


def benchmark(workspace: Path | None, options: BenchOptions, reporter: Reporter) -> BenchResult:
    """Measure everything; keep it in the workspace, where there is one."""
    try:
        home = find_workspace(workspace)
    except WorkspaceError:
        if workspace is not None:
            raise
        home = None
    result = run_benchmarks(home, SUITE, options, reporter)
    if result.record is None:
        reporter.say("Not kept: this folder is in no workspace (`emcache init` makes one).")
    else:
        reporter.say(f"Kept as record {result.record.id}; draw it with emcache chart bench.")
    return result


def bench_rows(result: BenchResult, chosen: Format | None) -> list[dict[str, Any]]:
    """The table: whole for machines, short for people."""
    rows = [measurement.as_row() for measurement in result.measurements]
    if chosen is Format.JSON or (chosen is None and not sys.stdout.isatty()):
        return rows
    if chosen in (Format.TABLE, Format.MARKDOWN, None):
        return [
            {
                "name": row["name"],
                "ratio": _figure(row["ratio"], row["unit"]),
                "spread": f"{_short(row['low'])} to {_short(row['high'])}",
                "target": row["target"] or "",
                "verdict": row["verdict"],
                "what": row["question"] + (f" ({row['note']})" if row["note"] else ""),
            }
            for row in rows
        ]
    return [{**row, "times": json.dumps(row["times"])} for row in rows]


def _figure(value: float, unit: str) -> str:
    return _short(value) if unit == "ratio" else f"{_short(value)} {unit}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
