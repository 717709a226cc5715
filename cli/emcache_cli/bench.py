"""``emcache bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import DeviceOption, FormatOption, WorkspaceOption

NAMES = (
    "help, head-step, floor, epochs, lora-split, extraction, size, memory, frechet, ingest, "
    "leaderboard, growth"
)
"""What there is to measure; said here too, since importing it takes seconds."""


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="About three minutes, at smaller sizes.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Measure this alone (may be repeated): {NAMES}."),
    ] = None,
    device: DeviceOption = "auto",
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Measure this machine: ratios of emcache to what it replaces, each with its target.

    Exit code 1 where a target was missed.
    """
    from emcache_bench.run import BenchOptions

    from emcache.findings import Verdict
    from emcache_cli.benchmarking import bench_rows, benchmark
    from emcache_cli.console import Console, show_rows

    result = benchmark(workspace, BenchOptions(quick, only or (), device), Console())
    show_rows(bench_rows(result, output_format), output_format)
    if any(item.verdict is Verdict.FAIL for item in result.measurements):
        raise typer.Exit(1)
