"""What a figure or a table shows: which runs, and which of the rows.

A choice works in two places. Runs are chosen before anything is averaged, by variables of the
connection that the views look at (``views/00_shown_runs.sql``). Rows are chosen afterwards, by the
columns of the query that is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from emcache.errors import UsageError, WarehouseError
from emcache_warehouse.database import identifier, quote
from emcache_warehouse.named import named_query
from emcache_warehouse.query import run_query

LABEL = "label"
"""Column that :func:`chosen_rows` adds for charts where labels were asked for."""

_DATASET_COLUMNS = ("eval_on", "dataset", "domain", "train_on")
_COMPUTED = ("macro", "pooled")
# Everything that stays the same when a training is repeated with other settings of its protocol.
_REPEATED = "regime, backbone, weights, longest_edge, pixel_size_nm, train_on, sampling, seed"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is shown; the default is everything but the runs that were set aside."""

    where: str | None = None
    """A condition of SQL on the columns of the query that is answered."""
    datasets: Sequence[str] = ()
    """Rows about these datasets: scored on one of them, or, of pairs of domains, both of them."""
    backbones: Sequence[str] = ()
    regimes: Sequence[str] = ()
    runs: Sequence[str] = ()
    """Identifiers of runs, or parts of them."""
    latest: bool = False
    """Of runs that differ in nothing but protocol and arithmetic, the newest; of gaps, the last
    measurement."""
    hidden: bool = False
    """Whether runs that were set aside are shown too."""
    label: str | None = None
    """A column of the query whose value is the label of a bar or a panel."""
    partly: bool = False
    """Apply what a query has columns for, and leave out the rest; else that is an error."""

    @property
    def narrows_runs(self) -> bool:
        """Whether some runs are left out before anything is averaged."""
        return bool(self.backbones or self.regimes or self.runs or self.latest)


EVERYTHING = Choice()
"""All that was not set aside."""


def chosen_rows(
    database: Path,
    name: str,
    choice: Choice = EVERYTHING,
    parameters: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """Answer a named query for what was chosen.

    Args:
        database: The warehouse's file.
        name: A named query.
        choice: What of it.
        parameters: Its parameters; defaults for what is not given.

    Raises:
        UsageError: No such query; a choice that it has no column for; no such run or dataset.
        WarehouseError: The condition cannot be read, or nothing is left.
    """
    query = named_query(name)
    conditions = _conditions(database, query.name, query.columns, choice)
    label = _label(query.name, query.columns, choice.label)
    variables = run_variables(database, choice)
    values = query.with_defaults(parameters or {})
    if not conditions and not label:
        return run_query(database, query.sql, values, variables=variables)
    try:
        found = run_query(
            database, _wrapped(query.sql, conditions, label), values, variables=variables
        )
    except WarehouseError as error:
        if choice.where is None:
            raise
        raise WarehouseError(
            f"--where {choice.where!r} cannot be read ({_first_sentence(error)}); expected a "
            f"condition of SQL on the columns {', '.join(query.columns)}.",
            subject=choice.where,
        ) from error
    if found.is_empty() and not choice.partly:
        whole = run_query(database, query.sql, values, variables={"show_hidden": choice.hidden})
        if not whole.is_empty():
            raise WarehouseError(
                f"none of the {whole.height} rows of {name} is left by what was chosen; leave out "
                f"one of the options that choose.",
                subject=name,
            )
    return found


def of_runs(database: Path, choice: Choice) -> Choice:
    """The same choice for many queries: ``where`` is a condition on the columns of ``runs``.

    Raises:
        UsageError: No such run.
        WarehouseError: The condition cannot be read, or no run is left.
    """
    if choice.where is None:
        return replace(choice, partly=True)
    sql = f"SELECT run_id FROM shown_runs WHERE (\n{choice.where}\n)"  # noqa: S608 - read-only
    try:
        frame = run_query(database, sql, {}, variables=run_variables(database, choice))
    except WarehouseError as error:
        raise WarehouseError(
            f"--where {choice.where!r} cannot be read ({_first_sentence(error)}); expected a "
            f"condition of SQL on the columns of the table runs.",
            subject=choice.where,
        ) from error
    if frame.is_empty():
        raise WarehouseError(
            f"no run is left by --where {choice.where!r}; leave it out, or choose otherwise.",
            subject=choice.where,
        )
    runs: list[str] = frame["run_id"].to_list()
    return replace(choice, where=None, runs=runs, partly=True)


def run_variables(database: Path, choice: Choice) -> dict[str, object]:
    """Variables of a connection by which the views show the chosen runs alone.

    Raises:
        UsageError: No run has a name that was given.
    """
    variables: dict[str, object] = {"show_hidden": choice.hidden}
    if choice.narrows_runs:
        variables["only_runs"] = _chosen_runs(database, choice)
    return variables


def _chosen_runs(database: Path, choice: Choice) -> list[str]:
    conditions = [
        *_one_of("backbone", choice.backbones),
        *_one_of("regime", choice.regimes),
    ]
    where = " AND ".join(conditions) or "true"
    newest = (
        f"QUALIFY row_number() OVER (PARTITION BY {_REPEATED} ORDER BY run_id DESC) = 1"
        if choice.latest
        else ""
    )
    frame = run_query(
        database,
        f"SELECT run_id FROM shown_runs WHERE {where} {newest} ORDER BY run_id",  # noqa: S608 - quoted
        {},
        variables={"show_hidden": choice.hidden},
    )
    runs: list[str] = frame["run_id"].to_list() if frame.height else []
    if not choice.runs:
        return runs
    everything = run_query(database, "SELECT run_id FROM runs ORDER BY run_id", {})
    known: list[str] = everything["run_id"].to_list() if everything.height else []
    exact = set(choice.runs).intersection(known)
    parts = [text for text in choice.runs if text not in exact]
    for text in parts:
        if not any(text in run for run in known):
            raise UsageError(
                f"there is no run {text!r}; expected the identifier of a run or a part of it: "
                f"`emcache runs list` shows them.",
                subject=text,
            )
    return [run for run in runs if run in exact or any(text in run for text in parts)]


def _conditions(database: Path, name: str, columns: Sequence[str], choice: Choice) -> list[str]:
    """Conditions on the columns of a query."""
    conditions = [f"(\n{choice.where}\n)"] if choice.where else []
    if choice.datasets and (about := _about(database, name, columns, choice)):
        conditions.append(about)
    for column, values in (("backbone", choice.backbones), ("regime", choice.regimes)):
        if column in columns:
            conditions += _one_of(column, values)
        elif values and not _has_runs(columns) and not choice.partly:
            raise _no_such_choice(name, column)
    if choice.runs:
        if "gap_id" in columns:
            # Distances are not scores: the views of runs leave all of them in.
            chosen = "run_id IN (SELECT unnest(getvariable('only_runs')::VARCHAR[]))"
            conditions.append(f"({chosen} OR run_id IS NULL)" if choice.partly else chosen)
        elif not _has_runs(columns) and not choice.partly:
            raise _no_such_choice(name, "run")
    if choice.latest:
        if "gap_id" in columns:
            conditions.append("gap_id = (SELECT max(gap_id) FROM gaps)")
        elif not _has_runs(columns) and not choice.partly:
            raise _no_such_choice(name, "latest")
    return conditions


def _has_runs(columns: Sequence[str]) -> bool:
    """Whether the rows are made of runs, if only as a mean."""
    return "n_runs" in columns or "run_id" in columns


def _about(database: Path, name: str, columns: Sequence[str], choice: Choice) -> str | None:
    datasets = choice.datasets
    known = run_query(database, "SELECT dataset FROM datasets ORDER BY dataset", {})
    names: list[str] = known["dataset"].to_list() if known.height else []
    for dataset in datasets:
        if dataset.partition(":")[0] not in names:
            raise UsageError(
                f"there is no dataset {dataset!r} in the warehouse; known: "
                f"{', '.join(names) or 'none'}.",
                subject=dataset,
            )
    if "domain_a" in columns:
        return " AND ".join(_of_one(column, datasets) for column in ("domain_a", "domain_b"))
    listed = ", ".join(map(quote, datasets))
    for column in _DATASET_COLUMNS:
        if column not in columns:
            continue
        if column == "train_on":
            return f"list_has_any(string_split(train_on, ' + '), [{listed}])"
        about = _of_one(column, datasets)
        if column == "eval_on" and "train_on" in columns:
            # The mean over datasets is about them if each is one of those asked for.
            both = f"list_has_all([{listed}], string_split(train_on, ' + '))"
            computed = ", ".join(map(quote, _COMPUTED))
            about = f"({about} OR (eval_on IN ({computed}) AND {both}))"
        return about
    if choice.partly:
        return None
    raise _no_such_choice(name, "dataset")


def _of_one(column: str, datasets: Sequence[str]) -> str:
    """The condition that a column names one of the datasets, or a split of one."""
    each = [
        f"{column} = {quote(name)} OR starts_with({column}, {quote(name + ':')})"
        for name in datasets
    ]
    return f"({' OR '.join(each)})"


def _one_of(column: str, values: Sequence[str]) -> list[str]:
    return [f"{identifier(column)} IN ({', '.join(map(quote, values))})"] if values else []


def _label(name: str, columns: Sequence[str], label: str | None) -> str:
    if label is None:
        return ""
    if label not in columns:
        raise UsageError(
            f"--label {label!r} is not a column of {name}; expected one of {', '.join(columns)}.",
            subject=label,
        )
    return f", {identifier(label)}::VARCHAR AS {LABEL}"


def _wrapped(sql: str, conditions: Sequence[str], label: str) -> str:
    where = "\nAND ".join(conditions) or "true"
    return f"SELECT *{label} FROM (\n{sql}\n)\nWHERE {where}"  # noqa: S608 - asked read-only


def _no_such_choice(name: str, what: str) -> UsageError:
    return UsageError(
        f"{name} has no {what} to choose by; leave --{what} out, or use --where with one of its "
        f"columns.",
        subject=what,
    )


def _first_sentence(error: WarehouseError) -> str:
    return str(error).splitlines()[0].rstrip(".")
