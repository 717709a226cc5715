"""Which differences between setups are real: paired over seeds, and over blocks of slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from emcache.data.plane import natural_key
from emcache.errors import UsageError
from emcache.evaluation.intervals import (
    BLOCKS,
    FEWEST_SLICES,
    SliceCounts,
    holm,
    iou,
    over_seeds,
    over_seeds_and_blocks,
)
from emcache_warehouse.query import run_query

_ALPHA = 0.05
_FEWEST_SEEDS = 3

_COUNTS = """
SELECT
    runs.run_id,
    setup_fingerprint,
    concat_ws(', ', regime, backbone, protocol, 'on ' || train_on) AS setup,
    seed,
    eval_on,
    slice_id,
    tp,
    fp,
    fn
FROM slice_counts
JOIN shown_runs AS runs USING (run_id)
WHERE split = 'test' AND class = 'foreground' AND coalesce(slices_from_training <> 0, true)
"""


@dataclass(frozen=True, slots=True)
class Setup:
    """Runs that differ in the seed alone."""

    name: str
    """What the user calls it: one of its runs."""
    words: str
    """Its regime, backbone, protocol and training data."""
    counts: Mapping[str, Mapping[int, pl.DataFrame]]
    """Of every test set the slices' counts, by the seed; of two runs of one seed the newest."""


def compare_runs(
    database: Path, runs: Sequence[str], on: str | None = None
) -> list[dict[str, Any]]:
    """Compare setups pair by pair on the test slices that both were scored on.

    Args:
        database: The warehouse's file.
        runs: Identifiers of runs, two or more; each stands for all seeds of its setup.
        on: One dataset; None for all.

    Returns:
        A row for each pair and dataset: both scores, the difference of the second less the first
        with a 95 % interval, its p-value, the same for all comparisons together by Holm's
        procedure, and what that says.

    Raises:
        UsageError: Fewer than two setups, other test slices, or nothing in common.
    """
    setups = _setups(database, runs)
    rows = []
    for one, other in combinations(setups, 2):
        common = [name for name in one.counts if name in other.counts and on in (None, name)]
        rows += [_compare(one, other, name) for name in common]
    if not rows and on is not None:
        raise UsageError(
            f"no two of these setups were scored on test slices of {on}; found "
            f"{', '.join(dict.fromkeys(name for setup in setups for name in setup.counts))}: name "
            f"one of these, or score them there with `emcache evaluate`.",
            subject=on,
        )
    if not rows:
        tested = " and ".join(f"{s.name} on {', '.join(s.counts) or 'none'}" for s in setups)
        raise UsageError(
            f"these runs have no test set in common ({tested}); score them on the same slices with "
            f"`emcache evaluate`.",
            subject=tuple(runs),
        )
    known = [row for row in rows if row["p_value"] is not None]
    for row, p_value in zip(known, holm([row["p_value"] for row in known]), strict=True):
        row["p_holm"] = p_value
        if row["answer"] is None:
            better = "b is better" if row["difference"] > 0 else "a is better"
            row["answer"] = better if p_value < _ALPHA else "not told apart"
    return rows


def _setups(database: Path, runs: Sequence[str]) -> list[Setup]:
    rows = run_query(database, _COUNTS, {})
    setups: dict[str, Setup] = {}
    for run in runs:
        own = rows.filter(run_id=run)
        if own.is_empty():
            raise UsageError(
                f"run {run} has no test score that counts; expected a run that was scored on test "
                f"slices and was not set aside.",
                subject=run,
            )
        key, words = own.row(0, named=True)["setup_fingerprint"], own["setup"][0]
        counts = _by_seed(rows.filter(setup_fingerprint=key))
        setups.setdefault(key, Setup(run, words, counts))
    if len(setups) < 2:
        raise UsageError(
            f"{', '.join(runs)} are {len(setups)} setup; expected two or more: runs of one setup "
            f"differ in the seed alone.",
            subject=tuple(runs),
        )
    return list(setups.values())


def _by_seed(rows: pl.DataFrame) -> dict[str, dict[int, pl.DataFrame]]:
    found: dict[str, dict[int, pl.DataFrame]] = {}
    for (name, seed), own in rows.group_by("eval_on", "seed", maintain_order=True):
        newest = own.filter(pl.col("run_id") == own["run_id"].max())
        order = sorted(range(newest.height), key=lambda p: natural_key(newest["slice_id"][p]))
        found.setdefault(str(name), {})[int(str(seed))] = newest[order]
    return dict(sorted(found.items()))


def _compare(one: Setup, other: Setup, name: str) -> dict[str, Any]:
    seeds = sorted(one.counts[name].keys() & other.counts[name].keys())
    for seed in seeds:
        slices = [s.counts[name][seed]["slice_id"].to_list() for s in (one, other)]
        if slices[0] != slices[1]:
            raise UsageError(
                f"{one.name} was scored on {len(slices[0])} test slices of {name} and {other.name} "
                f"on {len(slices[1])}, which are not the same; score both on today's with "
                f"`emcache evaluate`.",
                subject=name,
            )
    row: dict[str, Any] = {
        "a": one.name,
        "b": other.name,
        "setup_a": one.words,
        "setup_b": other.words,
        "eval_on": name,
        "n_seeds": len(seeds),
        "n_slices": len(slices[0]) if seeds else None,
        **dict.fromkeys(
            ("iou_a", "iou_b", "difference", "low", "high", "p_value", "p_holm", "answer")
        ),
    }
    if len(seeds) < _FEWEST_SEEDS:
        return {**row, "answer": f"too few seeds in common; it takes {_FEWEST_SEEDS}"}
    a, b = (_stacked(setup.counts[name], seeds) for setup in (one, other))
    row |= {"iou_a": float(iou(a).mean()), "iou_b": float(iou(b).mean())}
    interval = over_seeds_and_blocks(b, a)
    if interval is None:
        alone = over_seeds(b, a)
        assert alone is not None  # noqa: S101 - there are seeds enough
        few = f"too few slices for {BLOCKS} blocks; it takes {FEWEST_SLICES}"
        return {**row, "difference": alone.value, "answer": few}
    value, low, high, p_value = interval
    return {**row, "difference": value, "low": low, "high": high, "p_value": p_value}


def _stacked(counts: Mapping[int, pl.DataFrame], seeds: Sequence[int]) -> SliceCounts:
    return np.stack([counts[seed].select("tp", "fp", "fn").to_numpy() for seed in seeds])
