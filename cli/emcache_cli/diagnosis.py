"""Everything that ``emcache doctor`` looks at, and how it is shown."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from emcache.doctor.examination import examine_machine, examine_workspace
from emcache.doctor.findings import Finding, Verdict, guarded
from emcache.doctor.places import look_for_workspace
from emcache.progress import Reporter
from emcache.workspace import Workspace
from emcache_cli.console import show_rows
from emcache_cli.options import Format

_FOR_PEOPLE = (Format.TABLE, Format.MARKDOWN)


def diagnose(given: Path | None, thorough: bool) -> list[Finding]:
    """Look at the machine, and at the workspace where there is one."""
    workspace, found = look_for_workspace(given)
    return [
        *examine_machine(),
        found,
        *examine_workspace(workspace, thorough=thorough),
        *(_examine_warehouse(workspace, thorough) if workspace else ()),
    ]


def show_findings(findings: Sequence[Finding], chosen: Format | None, reporter: Reporter) -> None:
    """Write the findings, and say how many there are of each verdict."""
    if chosen in _FOR_PEOPLE or (chosen is None and sys.stdout.isatty()):
        rows = [
            {
                "verdict": finding.verdict.upper(),
                "name": finding.name,
                "message": finding.message,
                "remedy": finding.remedy,
            }
            for finding in findings
        ]
    else:
        rows = [{**asdict(finding), "verdict": str(finding.verdict)} for finding in findings]
    try:
        show_rows(rows, chosen)
    except ImportError:
        # A package that is missing is one of the findings.
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    counts = Counter(finding.verdict for finding in findings)
    reporter.say(", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict) + ".")


def _examine_warehouse(workspace: Workspace, thorough: bool) -> list[Finding]:
    def look() -> list[Finding]:
        from emcache_warehouse.health import examine_warehouse

        return examine_warehouse(workspace.runs, workspace.warehouse, thorough=thorough)

    return guarded("warehouse", look)
