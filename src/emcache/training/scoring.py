"""Scores of slices as pixel counts, and the label pictures that go with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import polars as pl
import torch
from PIL import Image

from emcache.data.classes import FOREGROUND
from emcache.storage.records import Draft
from emcache.training.batches import Examples
from emcache.training.counts import Counts
from emcache.training.sampling import chunks
from emcache.training.seen import Seen
from emcache.training.sources import Sources
from emcache.training.trainer import Trainer


def score_slices(
    trainer: Trainer,
    examples: Examples,
    sources: Sources,
    positions: Sequence[int],
    batch: int,
    pictures: Draft | None,
    seen: Seen,
) -> list[dict[str, Any]]:
    """Predict slices and count; a row of ``slice_metrics.parquet`` for each slice and class.

    Args:
        trainer: Whose model predicts.
        examples: Where inputs and masks come from.
        sources: Whose slices the positions mean.
        positions: Which slices.
        batch: Slices in one forward pass.
        pictures: Where to keep predicted and true labels as PNG, or None.
        seen: What the model has learned from.
    """
    rows = {}
    distances = {s.dataset.name: seen.distances(s.dataset) for s in sources.items}
    for _, slices in trainer.predict(examples.steps(chunks(positions, batch))):
        for position, predicted, true in slices:
            source, item = sources.at(position)
            classes = source.dataset.classes
            counts = {FOREGROUND: Counts.of(predicted, true)}
            for name in classes.scored:
                counts[name] = Counts.of_class(predicted, true, classes.names.index(name))
            rows[position] = [
                {
                    "eval_on": source.dataset.name,
                    "split": item.split or "all",
                    "slice_id": item.id,
                    "class": name,
                    **asdict(count),
                    "slices_from_training": distances[source.dataset.name][item.id],
                }
                for name, count in counts.items()
            ]
            if pictures is not None:
                for kind, labels in (("predictions", predicted), ("masks", true)):
                    file = PurePosixPath(kind, source.dataset.name, f"{item.id}.png")
                    shown = classes.shown(labels.to("cpu", torch.uint8).numpy())
                    Image.fromarray(shown).save(pictures.path(str(file)))
    return [row for position in positions for row in rows[position]]


def slice_table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The rows of :func:`score_slices` as a table."""
    return pl.DataFrame(rows, schema_overrides={"slices_from_training": pl.Int64})


def iou_of(rows: Iterable[Mapping[str, Any]]) -> float:
    """Foreground IoU over the pixel totals of some rows; rows of single classes do not count."""
    whole = (row for row in rows if row["class"] == FOREGROUND)
    return Counts.total(Counts(r["tp"], r["fp"], r["fn"], r["tn"]) for r in whole).iou
