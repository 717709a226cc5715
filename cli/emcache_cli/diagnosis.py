"""Everything that ``emcache doctor`` looks at, and how it is shown."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from emcache.findings import Finding, Verdict, guarded
from emcache.maintenance.doctor import examine_machine, examine_workspace, look_for_workspace
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace
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
    if chosen is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        sys.stdout.write("".join(f"{line}\n" for line in as_lines(findings, width)))
    else:
        _show_rows(findings, chosen)
    counts = Counter(finding.verdict for finding in findings)
    shown = (Verdict.PASS, Verdict.WARN, Verdict.FAIL)
    reporter.say(", ".join(f"{counts[verdict]} {verdict}" for verdict in shown) + ".")


def as_lines(findings: Sequence[Finding], width: int) -> Iterator[str]:
    """Each finding as a line, its remedy below it, wrapped at so many characters."""
    longest = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        head = f"{finding.verdict.upper():4}  {finding.name:{longest}}  "
        parts = [(head, finding.message)]
        if finding.remedy:
            parts.append((" " * len(head), f"-> {finding.remedy}"))
        for start, text in parts:
            yield from textwrap.wrap(
                text,
                max(width, 2 * len(head)),
                initial_indent=start,
                subsequent_indent=" " * len(head),
                break_on_hyphens=False,
                break_long_words=False,
            )


def _show_rows(findings: Sequence[Finding], chosen: Format | None) -> None:
    if chosen in _FOR_PEOPLE:
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


def _examine_warehouse(workspace: Workspace, thorough: bool) -> list[Finding]:
    def look() -> list[Finding]:
        from emcache_warehouse.health import examine_warehouse

        return examine_warehouse(workspace.runs, workspace.warehouse, thorough=thorough)

    return guarded("warehouse", look)
