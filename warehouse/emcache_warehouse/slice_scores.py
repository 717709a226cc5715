"""Scores of single slices, to choose by."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from emcache.errors import UsageError
from emcache_warehouse.database import open_readonly

_SCORES = """
SELECT slice_id, tp / (tp + fp + fn + 1e-7) AS iou_fg
FROM slice_metrics
WHERE run_id = $run AND eval_on = $dataset AND class = 'foreground'
    AND ($split IS NULL OR split = $split)
"""


def slice_scores(database: Path, run: str, dataset: str, split: str | None) -> dict[str, float]:
    """Foreground IoU of a run on each slice of a dataset that it was scored on.

    Args:
        database: The warehouse's file.
        run: Its identifier.
        dataset: Which.
        split: One of its splits; None for all.

    Raises:
        UsageError: It has none there.
    """
    with closing(open_readonly(database)) as connection:
        values = {"run": run, "dataset": dataset, "split": split}
        found = connection.execute(_SCORES, values).fetchall()
    if not found:
        raise UsageError(
            f"run {run} has no scores on {dataset}; make them with `emcache evaluate {run} --on "
            f"{dataset}`, or choose slices by --pick spread.",
            subject=dataset,
        )
    return dict(found)
