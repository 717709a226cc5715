"""What is said after looking after the warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from emcache.progress import Reporter
from emcache.storage.workspace import Workspace
from emcache_cli.asking import report_sync
from emcache_warehouse.sync import Finding, SyncReport, check, repair


def tell(report: SyncReport, reporter: Reporter) -> None:
    """Say what a sync or rebuild did."""
    report_sync(report, reporter)
    count = len(report.ingested)
    reporter.say(
        f"Took in {count} record{'' if count == 1 else 's'} in {report.seconds:.2f} s."
        if report.changed
        else "Nothing new; the warehouse is up to date."
    )


def checked(workspace: Workspace, fix: bool, reporter: Reporter) -> list[Finding]:
    """Check records and warehouse; with ``fix`` what is wrong is made anew and checked again."""
    findings = check(workspace.runs, workspace.warehouse)
    if fix and (report := repair(workspace.runs, workspace.warehouse, findings)) is not None:
        tell(report, reporter)
        findings = check(workspace.runs, workspace.warehouse)
    return findings


def finding_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """One row a finding."""
    return [{**asdict(finding), "verdict": str(finding.verdict)} for finding in findings]


def has_failure(findings: Sequence[Finding]) -> bool:
    """Whether any check failed."""
    return any(finding.verdict == "fail" for finding in findings)
