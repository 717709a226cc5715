"""What alignment changes, with intervals over seeds and over blocks of slices, as a table.

    python benchmarks/alignment_differences.py WORKSPACE... > benchmarks/alignment_differences.csv

Each workspace holds runs of ``studies/alignment.toml``, or of the same with a linear head. Compared
are one head for both datasets with each alone, and transfer with an alignment with transfer without
one, seed by seed, on the same test slices.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from emcache.data.plane import natural_sorted
from emcache.evaluation.intervals import over_seeds, over_seeds_and_blocks
from emcache.storage.workspace import find_workspace
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import sync

_COUNTS = """
SELECT scores.* EXCLUDE (n_slices), counts.slice_id, counts.tp, counts.fp, counts.fn
FROM aligned_scores AS scores
JOIN slice_counts AS counts ON counts.run_id = scores.run_id AND counts.eval_on = scores.eval_on
WHERE counts.split = 'test' AND counts.class = 'foreground' AND scores."precision" = 'float32'
ORDER BY scores.run_id
"""
_SETUP = ("protocol", "longest_edge", "regime", "sampling")
Runs = Mapping[int, np.ndarray]
"""Counts of every slice, by seed."""


def counts_of(rows: pl.DataFrame) -> dict[int, np.ndarray]:
    """Of runs that differ in the seed alone; of two of one seed the newest."""
    newest = rows.group_by("seed").agg(pl.col("run_id").max())
    own = rows.join(newest, on=["seed", "run_id"], how="semi")
    names = natural_sorted(own["slice_id"].unique())
    own = own.sort("seed", pl.col("slice_id").cast(pl.Enum(names)))
    return {
        seed: part.select("tp", "fp", "fn").to_numpy()
        for (seed,), part in own.group_by("seed", maintain_order=True)
    }


def compare(ours: Runs, theirs: Runs) -> dict[str, float | int | None]:
    """The difference over the seeds that both have."""
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        return {}
    one, other = (np.stack([runs[seed] for seed in seeds]) for runs in (ours, theirs))
    seeds_alone, whole = over_seeds(one, other), over_seeds_and_blocks(one, other)
    return {
        "n_seeds": len(seeds),
        "n_slices": one.shape[1],
        "change": seeds_alone.value,
        "low_seeds": seeds_alone.low,
        "high_seeds": seeds_alone.high,
        "low_blocks": None if whole is None else whole.low,
        "high_blocks": None if whole is None else whole.high,
    }


def main() -> None:
    """Write the table to standard output."""
    parts = []
    for path in sys.argv[1:]:
        place = find_workspace(Path(path))
        sync(place.runs, place.warehouse)
        parts.append(run_query(place.warehouse, _COUNTS, {}))
    # A workspace may hold copies of another's records.
    copies = ["run_id", "eval_on", "slice_id"]
    rows = pl.concat(parts).unique(subset=copies, maintain_order=True)
    found = []
    for key, setup in rows.group_by(*_SETUP, "eval_on", maintain_order=True):
        facts = dict(zip((*_SETUP, "eval_on"), key, strict=True))
        plain = setup.filter(aligned_by="none")
        for (aligned_by,), aligned in setup.group_by("aligned_by", maintain_order=True):
            for comparison, setting, before in (
                ("together less alone", "together", "alone"),
                ("transfer with less without", "transfer", "transfer"),
            ):
                if setting == before and aligned_by == "none":
                    continue
                difference = compare(
                    counts_of(aligned.filter(setting=setting)),
                    counts_of(plain.filter(setting=before)),
                )
                if difference:
                    names = {"comparison": comparison, "aligned_by": aligned_by}
                    found.append({**facts, **names, **difference})
    order = [*_SETUP, "comparison", "eval_on", "aligned_by"]
    sys.stdout.write(pl.DataFrame(found).sort(order).write_csv(float_precision=4))


if __name__ == "__main__":
    main()
