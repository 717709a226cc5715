"""``gap --of``: how far new slices lie from what a run was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from emcache.cache.plan import plan_extraction
from emcache.data.dataset import Selection
from emcache.errors import RecordError
from emcache.evaluation.trained_run import find_run
from emcache.gap.sources import features_of, options_of_run
from emcache.models.weights import describe_untrained, is_untrained
from emcache.progress import Reporter
from emcache.storage.records import Record, new_record
from emcache.storage.workspace import Workspace
from emcache.training.reference import FEWEST_SLICES, compare
from emcache.training.scoring import seen_by

KIND = "familiarity"
"""Kind of the records."""


def measure_familiarity(
    workspace: Workspace,
    run: str,
    selections: Sequence[str],
    reporter: Reporter,
    *,
    weights: str | None = None,
    device: str = "auto",
) -> tuple[list[dict[str, Any]], Record]:
    """Compare slices with those that a run was trained on (:mod:`emcache.training.reference`).

    Args:
        workspace: Where.
        run: Identifier of the run, or a part of it.
        selections: ``NAME`` or ``NAME:SPLIT``; masks are not needed.
        reporter: Receives progress, and a sentence for each selection.
        weights: Where the backbone's weights are, if not where they were.
        device: Where to compute.

    Returns:
        A row for each slice, and the record that keeps them.

    Raises:
        RecordError: No such run, or one that keeps nothing to compare with.
        StoreError: Tokens that are not finite.
    """
    trained = find_run(workspace, run)
    references = trained.references()
    if not references:
        raise RecordError(
            f"run {trained.id} keeps nothing to compare new slices with; expected a run of this "
            f"version, with at least {FEWEST_SLICES} training slices of a dataset: train it again.",
            subject=trained.record,
        )
    extraction = options_of_run(trained, weights, device)
    jobs = [
        plan_extraction(workspace, Selection.parse(text), extraction, reporter)
        for text in selections
    ]
    if is_untrained(trained.config["weights"]):
        reporter.say(describe_untrained(trained.config["weights"]))
    seen = seen_by(trained.record)
    rows = []
    for job in jobs:
        features = features_of(job, reporter)
        for position, item in enumerate(job.slices):
            found = compare(references, features.grid(position))
            rows.append(
                {
                    "run_id": trained.id,
                    "domain": features.name,
                    "slice_id": item.id,
                    "learned_from": item.whole.pixel_sha256 in seen.pixels,
                    "nearest": found.nearest,
                    "distance": found.distance.tokens,
                    "distance_of_mean": found.distance.slice,
                    "p_value": found.p_tokens,
                    "p_value_of_mean": found.p_slice,
                    "outside": found.outside,
                }
            )
    smallest = min(reference.smallest for reference in references)
    _tell(rows, smallest, reporter)
    with new_record(workspace.runs, KIND) as draft:
        draft.config = {
            "run_id": trained.id,
            "selections": list(selections),
            "smallest_p_value": smallest,
        }
        draft.write_table("familiarity.parquet", pl.DataFrame(rows, infer_schema_length=None))
        record = draft.finish()
    return rows, record


def _tell(rows: Sequence[dict[str, Any]], smallest: float, reporter: Reporter) -> None:
    for domain in dict.fromkeys(row["domain"] for row in rows):
        own = [row for row in rows if row["domain"] == domain]
        new = [row for row in own if not row["learned_from"]]
        outside = sum(row["outside"] for row in new)
        learned = len(own) - len(new)
        reporter.say(
            f"{domain}: {outside} of {len(new)} new slices lie outside of what the run was trained "
            f"on{f' ({learned} more are training slices)' if learned else ''}; the smallest "
            f"p-value that there can be is {smallest:.3f}."
        )
