"""What a report says in a minute: what was compared, what is best, does it hold, what is next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from emcache.storage.workspace import Workspace
from emcache_warehouse.charts.setups import is_untrained
from emcache_warehouse.choice import Choice, chosen_rows, run_variables
from emcache_warehouse.query import run_query
from emcache_warehouse.report.content import Section, Table

_COMPUTED = ("macro", "pooled")
_ENOUGH_RUNS, _ENOUGH_SLICES = 3, 10

_RUNS = """
SELECT
    count(*) AS runs,
    count(DISTINCT setup_fingerprint) AS setups,
    list(DISTINCT regime ORDER BY regime) AS regimes,
    list(DISTINCT backbone ORDER BY backbone) FILTER (backbone IS NOT NULL) AS backbones,
    list(DISTINCT train_on ORDER BY train_on) AS train_on,
    count(nothing_learned) AS nothing
FROM shown_runs
"""
_AUDITS = """
SELECT dataset, arg_max(verdict, audit_id) AS verdict
FROM audits GROUP BY dataset ORDER BY dataset
"""
_NAMES = "SELECT DISTINCT dataset FROM datasets ORDER BY dataset"


def summary(workspace: Workspace, choice: Choice) -> Section:
    """The first section."""
    section = Section("summary", "In short")
    database = workspace.warehouse
    (runs,) = run_query(database, _RUNS, {}, variables=run_variables(database, choice)).to_dicts()
    rows = _of_tests(chosen_rows(database, "leaderboard", choice))
    audits = dict(run_query(database, _AUDITS, {}).iter_rows())
    names = run_query(database, _NAMES, {})["dataset"].to_list()
    if runs["runs"]:
        section.notes.append(_compared(runs))
    best = [_Best(rows, name) for name in rows["eval_on"].unique(maintain_order=True).sort()]
    if best:
        section.tables.append(
            Table(
                "Best on each dataset, of setups that were trained on it and of others",
                [
                    "scored on",
                    "best setup",
                    "IoU",
                    "95 % interval",
                    "best trained elsewhere",
                    "IoU ",
                ],
                [item.row() for item in best],
                [False, False, True, False, False, True],
            )
        )
    section.notes += [
        *(note for item in best if (note := item.transfer()) is not None),
        *_soundness(names, audits),
        *(f"Next: {step}" for step in _steps(runs, best, names, audits)),
    ]
    return section


class _Best:
    """The best setups on one dataset."""

    def __init__(self, rows: pl.DataFrame, name: str) -> None:
        own = rows.filter(pl.col("eval_on") == name).sort("iou_fg_mean", descending=True)
        trained = pl.col("train_on").str.split(" + ").list.contains(name)
        self.name = name
        self.here = next(own.filter(trained).iter_rows(named=True), None)
        self.elsewhere = next(own.filter(~trained).iter_rows(named=True), None)

    def row(self) -> list[str]:
        """Of the table."""
        here, other = self.here, self.elsewhere
        return [
            self.name,
            "\N{EN DASH}" if here is None else _setup(here),
            "" if here is None else f"{here['iou_fg_mean']:.3f}",
            "" if here is None else _interval(here),
            "\N{EN DASH}" if other is None else f"{_setup(other)}, trained on {other['train_on']}",
            "" if other is None else f"{other['iou_fg_mean']:.3f}",
        ]

    def transfer(self) -> str | None:
        """What is lost by training elsewhere; None where one side is missing."""
        if self.here is None or self.elsewhere is None:
            return None
        own, other = self.here["iou_fg_mean"], self.elsewhere["iou_fg_mean"]
        lost = own - other
        share = f", {other / own:.0%} of it" if own > 0 else ""
        return (
            f"On {self.name} the best setup that was trained elsewhere "
            f"({self.elsewhere['train_on']}) scores {abs(lost):.3f} "
            f"{'less' if lost >= 0 else 'more'} than the best that was trained on it{share}."
        )


def _of_tests(rows: pl.DataFrame) -> pl.DataFrame:
    """Scores on single datasets, on slices that no run has learned from."""
    unseen = rows.filter(~pl.col("seen") & ~pl.col("eval_on").is_in(_COMPUTED))
    tests = unseen.filter(pl.col("split") == "test")
    return unseen if tests.is_empty() else tests


def _compared(runs: Mapping[str, Any]) -> str:
    count, setups = runs["runs"], runs["setups"]
    by = f" of {', '.join(runs['backbones'])}" if runs["backbones"] else ""
    return (
        f"{count} run{'s' * (count != 1)} of {setups} setup{'s' * (setups != 1)} "
        f"({', '.join(runs['regimes'])}{by}), trained on {'; '.join(runs['train_on'])}. Scores are "
        f"the foreground IoU on test slices that a run has not learned from, a mean over its seeds."
    )


def _setup(row: Mapping[str, Any]) -> str:
    size = f", {row['longest_edge']} px" if row["longest_edge"] is not None else ""
    weights = row["weights"]
    named = f" ({weights}{', untrained' if is_untrained(weights) else ''})"
    return f"{row['regime']} {row['backbone'] or ''}{named if weights else ''}{size}".strip()


def _interval(row: Mapping[str, Any]) -> str:
    if row["iou_fg_low"] is not None:
        return f"{row['iou_fg_low']:.3f} to {row['iou_fg_high']:.3f}"
    few = []
    if row["n_runs"] < 2:
        few.append("one run")
    if row["n_slices"] < _ENOUGH_SLICES:
        few.append(f"{row['n_slices']} slices")
    return f"none: {' and '.join(few)}" if few else "none"


def _soundness(names: list[str], audits: Mapping[str, str]) -> Iterator[str]:
    by_verdict: dict[str, list[str]] = {}
    for name in names:
        by_verdict.setdefault(audits.get(name, "none"), []).append(name)
    words = {
        "pass": "The masks of {} fit their slices (audit passed).",
        "warn": "The audit of {} passed with warnings, which stand below.",
        "fail": "The audit of {} failed: masks may belong to other slices, so scores mean little.",
        "none": "Not audited, so it is open whether masks belong to their slices: {}.",
    }
    for verdict, sentence in words.items():
        if verdict in by_verdict:
            yield sentence.format(", ".join(by_verdict[verdict]))


def _steps(
    runs: Mapping[str, Any], best: list[_Best], names: list[str], audits: Mapping[str, str]
) -> Iterator[str]:
    """What would make the answers better, the gravest first."""
    if not names:
        yield "add a dataset with `emcache dataset add`."
        return
    failed = [name for name in names if audits.get(name) == "fail"]
    if failed:
        named = ", ".join(failed)
        yield f"mend the pairing of {named}; `emcache dataset audit {failed[0]}` says how."
    unknown = [name for name in names if name not in audits]
    if unknown:
        yield f"check the masks with `emcache dataset audit {unknown[0]}`."
    if not runs["runs"]:
        yield f"train a first head with `emcache train-head {names[0]} --backbone dinov2-small`."
        return
    if runs["nothing"]:
        yield (
            f"look at the {runs['nothing']} runs that learned nothing (`emcache runs list`); their "
            f"scores are those of no model."
        )
    known = [item.here for item in best if item.here is not None]
    if any(is_untrained(row["weights"]) for row in known):
        yield "repeat with pretrained weights (`--weights`): the best setup has untrained ones."
    few = [row for row in known if row["n_runs"] < _ENOUGH_RUNS]
    if few:
        yield (
            f"repeat the best setup with more seeds (`--seeds 0-{_ENOUGH_RUNS - 1}`): "
            f"{few[0]['eval_on']} has {few[0]['n_runs']}."
        )
    small = [row for row in known if row["n_slices"] < _ENOUGH_SLICES]
    if small:
        yield (
            f"annotate more test slices of {small[0]['eval_on']}: {small[0]['n_slices']} are too "
            f"few to say which setup is better."
        )
    if len(names) > 1 and not any(item.elsewhere for item in best):
        yield "see whether it holds elsewhere with `emcache evaluate RUN --on DATASET`."
