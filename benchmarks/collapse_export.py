"""What docs/collapse.md shows, out of the warehouse of its study.

::

    emcache init . && emcache run studies/collapse.toml --data PATH --weights PATH
    python benchmarks/collapse_export.py .

writes the files of benchmarks/collapse: ``scores.csv`` (a row for each cell of the study and each
set of test slices), ``runs.csv`` (each run by itself), ``gaps.csv``, ``distances.csv`` and
``distance-pairs.csv``; and then the page's tables (``collapse_tables.py``).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import polars as pl
from collapse_distances import judge, measure_pairs
from collapse_tables import FOLDER, write_page
from scipy.stats import t as student

from emcache.storage.workspace import find_workspace
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import sync

CELL = [
    "regime",
    "weights",
    "longest_edge",
    "precision",
    "protocol",
    "train_on",
    "sampling",
    "eval_on",
]
"""What runs share that differ in the seed alone, and where they are scored."""
_BLOCKS = 6
"""Neighbouring test slices make so many blocks, or as many as there are slices."""

_COUNTS = """
WITH counted AS (
    SELECT run_id, eval_on, split, slice_id, tp, fp, fn
    FROM slice_metrics WHERE class = 'foreground'
    UNION ALL BY NAME
    SELECT run_id, scored.eval_on, split, slice_id, tp, fp, fn
    FROM evaluation_metrics AS scored JOIN evaluations USING (evaluation_id)
    WHERE class = 'foreground'
)
SELECT
    regime, weights, longest_edge, "precision", protocol, train_on, sampling, seed, eval_on,
    slice_id, any_value(tp) AS tp, any_value(fp) AS fp, any_value(fn) AS fn
FROM counted JOIN runs USING (run_id)
WHERE split = 'test'
GROUP BY ALL
ORDER BY ALL
"""
_RUNS = """
SELECT
    regime, weights, longest_edge, "precision", protocol, train_on, sampling, eval_on, seed,
    n_slices, iou_fg, audit_accepted
FROM run_metrics
WHERE split = 'test' AND eval_on NOT IN ('macro', 'pooled')
ORDER BY ALL
"""
_GAPS = """
SELECT
    gaps.regime, runs.train_on AS adapted_on, runs.seed, gaps.level, gaps.class, domain_a, domain_b,
    n_a, n_b, dim, effective_rank, frechet, frechet_low, frechet_high, n_yardstick,
    frechet_within_a, frechet_within_b, frechet_at_n, kernel, probe_auroc, probe_p_value
FROM gaps LEFT JOIN runs ON gaps.run_id = runs.run_id
ORDER BY ALL
"""


def main(folder: Path) -> None:
    """Write the files, and the page's tables."""
    workspace = find_workspace(folder)
    sync(workspace.runs, workspace.warehouse)
    runs = run_query(workspace.warehouse, _RUNS, {})
    counts = run_query(workspace.warehouse, _COUNTS, {})
    FOLDER.mkdir(exist_ok=True)
    _write("runs", runs)
    _write("scores", summarise(runs, counts))
    _write("gaps", run_query(workspace.warehouse, _GAPS, {}))
    pairs = measure_pairs(workspace.warehouse)
    _write("distance-pairs", pairs)
    _write("distances", judge(pairs))
    write_page()


def summarise(runs: pl.DataFrame, counts: pl.DataFrame) -> pl.DataFrame:
    """Mean score of each cell's runs, with an interval over the seeds and one over the slices.

    Args:
        runs: A row for each run and set of test slices.
        counts: True positives, false positives and false negatives of each slice.
    """
    rows = []
    for key, group in runs.group_by(CELL, maintain_order=True):
        cell = dict(zip(CELL, key, strict=True))
        slices = counts.filter(pl.col(name).eq_missing(value) for name, value in cell.items())
        scores = group["iou_fg"].to_numpy()
        seeds = over_seeds(scores)
        n_blocks, over_slices = over_blocks(slices)
        row = {**cell, "n_runs": len(scores), "n_slices": group["n_slices"][0]}
        row |= {"iou": scores.mean(), "low_over_seeds": seeds[0], "high_over_seeds": seeds[1]}
        row |= {"n_blocks": n_blocks, "low_over_slices": over_slices[0]}
        row |= {"high_over_slices": over_slices[1]}
        rows.append({**row, "audit_accepted": group["audit_accepted"][0]})
    return pl.DataFrame(rows, infer_schema_length=None).sort(CELL)


def over_seeds(scores: np.ndarray) -> tuple[float | None, float | None]:
    """A 95 % interval of the mean over runs, by Student's t; None for a single run."""
    if len(scores) == 1:
        return None, None
    return _around(scores.mean(), scores.std(ddof=1) / np.sqrt(len(scores)), len(scores) - 1)


def over_blocks(counts: pl.DataFrame) -> tuple[int, tuple[float, float]]:
    """A 95 % interval of the mean IoU over seeds: a jackknife over blocks of neighbouring slices.

    Pixels of one slice are no independent observations, and neither are neighbouring slices
    (Efron and Stein, Ann. Statist. 9:586, 1981; Kuensch, Ann. Statist. 17:1217, 1989).
    """
    order = sorted(counts["slice_id"].unique(), key=_number)
    blocks = np.array_split(np.arange(len(order)), min(_BLOCKS, len(order)))
    place = {slice_id: i for i, slice_id in enumerate(order)}
    seeds = counts["seed"].unique().sort().to_list()
    totals = np.zeros((len(seeds), len(order), 3))
    for seed, slice_id, *values in counts.select("seed", "slice_id", "tp", "fp", "fn").iter_rows():
        totals[seeds.index(seed), place[slice_id]] = values
    whole = _mean_iou(totals)
    without = np.array([_mean_iou(np.delete(totals, block, axis=1)) for block in blocks])
    n = len(blocks)
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    return n, _around(whole, error, n - 1)


def _mean_iou(totals: np.ndarray) -> float:
    summed = totals.sum(axis=1)
    return float((summed[:, 0] / (summed.sum(axis=1) + 1e-7)).mean())


def _around(middle: float, error: float, freedom: int) -> tuple[float, float]:
    half = float(student.ppf(0.975, freedom)) * error
    return max(0.0, float(middle) - half), min(1.0, float(middle) + half)


def _number(slice_id: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", slice_id)]


def _write(name: str, rows: pl.DataFrame) -> None:
    rows.write_csv(FOLDER / f"{name}.csv", float_precision=4)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
