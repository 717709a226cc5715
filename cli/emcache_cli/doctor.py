"""``emcache doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import FormatOption, WorkspaceOption


def doctor(
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Compare every checksum, and every row with the records."),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Measure anew which arithmetic, layout and threads are fastest."
        ),
    ] = False,
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Look at the machine and the workspace: what is well, what is not, and what fixes it.

    Nothing of the workspace is changed. Exit code 1 where something fails.
    """
    from emcache.findings import Verdict
    from emcache_cli.console import Console
    from emcache_cli.diagnosis import diagnose, show_findings

    if measure:
        from emcache.models.device import pick_device
        from emcache.models.measured import timings

        timings(pick_device(), again=True)
    findings = diagnose(workspace, thorough)
    show_findings(findings, output_format, Console())
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(1)
