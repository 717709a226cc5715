"""Boundary and object scores of measurements, as ``emcache metrics`` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from emcache.storage.records import Record
from emcache_warehouse.query import run_named_query

_SHOWN = (
    "run_id",
    "eval_on",
    "split",
    "dimensions",
    "n_slices",
    "dice_mean",
    "boundary_f_mean",
    "hausdorff_95_mean",
    "object_f1_50",
    "panoptic_quality_50",
    "object_f1_75",
    "panoptic_quality_75",
    "adapted_rand_error_mean",
    "voi_split_mean",
    "voi_merge_mean",
)


def shape_scores(database: Path, records: Iterable[Record]) -> list[dict[str, Any]]:
    """The rows of the named query ``metrics`` that these measurements made.

    Args:
        database: The warehouse's file, which holds them.
        records: Of the kind ``metrics``.
    """
    made = pl.DataFrame(
        [
            (r.config["run_id"], float(r.config["tolerance"]), r.config["smallest_object"])
            for r in records
        ],
        {"run_id": pl.String, "tolerance": pl.Float64, "smallest_object": pl.Int64},
        orient="row",
    )
    rows = run_named_query(database, "metrics").join(
        made, ["run_id", "tolerance", "smallest_object"], "semi", maintain_order="left"
    )
    return rows.select(_SHOWN).to_dicts()
