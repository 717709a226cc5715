"""From the command line's words to one answered query."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from emcache.errors import UsageError
from emcache.progress import Reporter
from emcache.workspace import Workspace, find_workspace
from emcache_warehouse.query import (
    list_queries,
    run_named_query,
    run_query,
)
from emcache_warehouse.sync import SyncReport, sync


@dataclass(frozen=True, slots=True)
class Question:
    """What ``emcache query`` was given."""

    sql: str | None
    """A statement, ``-`` for standard input, or None."""
    name: str | None
    """A named query, or None."""
    parameters: Sequence[str]
    """``key=value`` texts."""
    unsafe: bool = False
    """Whether the statement may reach files, other databases and extensions."""


def synced_workspace(given: Path | None, reporter: Reporter) -> Workspace:
    """The workspace, its warehouse brought up to date."""
    workspace = find_workspace(given)
    report_sync(sync(workspace.runs, workspace.warehouse), reporter)
    return workspace


def report_sync(report: SyncReport, reporter: Reporter) -> None:
    """Say what a sync left out or had to mend."""
    for note in report.notes:
        reporter.say(note)
    for problem in report.problems:
        reporter.say(f"Warning: {problem.message}")


def answer(question: Question, workspace: Path | None, reporter: Reporter) -> pl.DataFrame:
    """Answer a question from the warehouse, after taking in what is new.

    Raises:
        UsageError: Neither a statement nor a name, or both; a parameter that is no ``key=value``;
            a named query that would be unsafe.
        WarehouseError: DuckDB refuses the statement.
    """
    if (question.sql is None) == (question.name is None):
        found = "neither SQL nor --name" if question.sql is None else "both SQL and --name"
        raise UsageError(
            f'found {found}; expected one of them, as emcache query "from leaderboard" or '
            f"emcache query --name leaderboard."
        )
    if question.unsafe and question.name is not None:
        raise UsageError(
            "found --unsafe with --name; expected SQL of your own: named queries only ask, so "
            "leave --unsafe out."
        )
    parameters = dict(_key_value(text) for text in question.parameters)
    database = synced_workspace(workspace, reporter).warehouse
    if question.name is not None:
        return run_named_query(database, question.name, parameters)
    sql = sys.stdin.read() if question.sql == "-" else question.sql
    return run_query(database, sql or "", parameters, unsafe=question.unsafe)


def named_query_rows() -> list[dict[str, Any]]:
    """One row a named query."""
    return [
        {
            "name": query.name,
            "description": query.description,
            "parameters": ", ".join(f"{p.name}={p.default}" for p in query.parameters),
        }
        for query in list_queries()
    ]


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"parameter {text!r} cannot be read; expected -p KEY=VALUE.")
    return key, value
