"""From the command line's words to one answered query."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from emcache.errors import UsageError, WarehouseError
from emcache.progress import Reporter
from emcache.storage.run_names import find_run_id
from emcache.storage.workspace import Workspace, find_workspace
from emcache_warehouse.choice import EVERYTHING, Choice, chosen_rows, run_variables
from emcache_warehouse.formats import plain_value
from emcache_warehouse.query import list_queries, run_query
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
    choice: Choice = EVERYTHING
    """What of a named query; of a statement, whether runs that were set aside count."""
    unsafe: bool = False
    """Whether the statement may reach files, other databases and extensions."""


def synced_workspace(given: Path | None, reporter: Reporter) -> Workspace:
    """The workspace, its warehouse brought up to date."""
    workspace = find_workspace(given)
    report_sync(sync(workspace.runs, workspace.warehouse), reporter)
    return workspace


def report_sync(report: SyncReport, reporter: Reporter) -> None:
    """Say what a sync left out or had to fix."""
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
    if question.name is None and replace(question.choice, hidden=False) != EVERYTHING:
        raise UsageError(
            "found SQL with options that choose rows; expected these with --name: write the "
            "conditions into the statement (--hidden alone works with both)."
        )
    parameters = dict(_key_value(text) for text in question.parameters)
    database = synced_workspace(workspace, reporter).warehouse
    if question.name is not None:
        return chosen_rows(database, question.name, question.choice, parameters)
    sql = sys.stdin.read() if question.sql == "-" else question.sql
    variables = run_variables(database, question.choice)
    return run_query(database, sql or "", parameters, unsafe=question.unsafe, variables=variables)


def choose(name: str, choice: Choice, workspace: Path | None, reporter: Reporter) -> pl.DataFrame:
    """Answer a named query for what was chosen."""
    database = synced_workspace(workspace, reporter).warehouse
    return chosen_rows(database, name, choice)


def describe_run(run: str, workspace: Path | None, reporter: Reporter) -> dict[str, Any]:
    """Everything that the warehouse knows of one run, its scores as a list of rows.

    Raises:
        RecordError: No such run, or several.
        WarehouseError: The run was left out of the warehouse.
    """
    place = synced_workspace(workspace, reporter)
    run_id = find_run_id(place, run)
    everything = {"show_hidden": True}
    facts = run_query(
        place.warehouse,
        "FROM shown_runs WHERE run_id = $run",
        {"run": run_id},
        variables=everything,
    )
    if facts.is_empty():
        raise WarehouseError(
            f"run {run_id} is not in the warehouse; `emcache warehouse check` says why.",
            subject=run_id,
        )
    scores = run_query(
        place.warehouse,
        "SELECT eval_on, split, seen, n_slices, n_near, iou_fg, dice_fg FROM run_metrics "
        "WHERE run_id = $run ORDER BY ALL",
        {"run": run_id},
        variables=everything,
    )
    described = {name: plain_value(value) for name, value in facts.row(0, named=True).items()}
    fields = described.pop("protocol_fields")
    return {
        **described,
        "protocol_fields": None if fields is None else json.loads(fields),
        "scores": scores.to_dicts(),
    }


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
