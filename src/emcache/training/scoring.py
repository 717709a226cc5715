"""Scores of slices as pixel counts, and how near a slice lies to those that a run learned from.

A score on pixels that the run has learned from is not a test, whatever the slice is called. In a
stack, slices beside these look nearly the same; how many places lie between is kept with every
score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import polars as pl
import torch
from PIL import Image

from emcache.data.classes import FOREGROUND
from emcache.data.dataset import Dataset, Slice
from emcache.errors import RecordError
from emcache.storage.records import Draft, Record
from emcache.training.batches import Examples
from emcache.training.counts import Counts
from emcache.training.sampling import Sources, chunks
from emcache.training.trainer import Trainer

TRAINING_SLICES = "training_slices.parquet"
"""File of a run's record: a row for each slice that it learned from."""

_SCHEMA = {
    "dataset": pl.String,
    "slice_id": pl.String,
    "part": pl.String,
    "pixel_sha256": pl.String,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """The slices that a run has learned from, those of its validation included."""

    pixels: frozenset[str]
    """SHA-256 of their pixels."""
    names: frozenset[str] = frozenset()
    """``dataset/slice``, of a run whose record has no hashes."""

    def distances(self, dataset: Dataset) -> dict[str, int | None]:
        """Places from each slice of a dataset to the nearest one in its stack that was seen.

        Returns:
            By the slices' names: 0 for a slice that was seen itself, 1 for one beside such a slice,
            None where the stack has none.
        """
        stacks: dict[object, list[Slice]] = {}
        for item in dataset.slices:
            stacks.setdefault(item.image.stack, []).append(item)
        found: dict[str, int | None] = {}
        for stack in stacks.values():
            seen = [self._holds(dataset.name, item) for item in stack]
            before = _places_since(seen)
            behind = _places_since(seen[::-1])[::-1]
            for item, *both in zip(stack, before, behind, strict=True):
                known = [places for places in both if places is not None]
                found[item.id] = min(known, default=None)
        return found

    def _holds(self, dataset: str, item: Slice) -> bool:
        return item.pixel_sha256 in self.pixels or f"{dataset}/{item.id}" in self.names


def training_slices(sources: Sources, train: Sequence[int], val: Sequence[int]) -> pl.DataFrame:
    """The table that a run's record keeps: dataset, slice, ``train`` or ``validation``, pixels.

    Whoever learned from a tile has learned from the slice.

    Args:
        sources: Whose slices the positions mean.
        train: Positions of the slices that steps are made of.
        val: Positions of those that choose the best epoch; one that also trains stands once.
    """
    rows: dict[tuple[str, str], tuple[str, str, str, str]] = {}
    for part, positions in (("train", train), ("validation", val)):
        for source, item in map(sources.at, positions):
            name, whole = source.dataset.name, item.whole
            rows.setdefault((name, whole.id), (name, whole.id, part, whole.pixel_sha256))
    return pl.DataFrame(list(rows.values()), _SCHEMA, orient="row")


def seen_by(record: Record) -> Seen:
    """What the run of a record has learned from.

    Raises:
        RecordError: The record's table cannot be read.
    """
    if not record.has(TRAINING_SLICES):
        # Of a version that kept names alone.
        config = record.config
        return Seen(
            frozenset(), frozenset({*config.get("train_slices", ()), *config["val_slices"]})
        )
    try:
        table = pl.read_parquet(record.file(TRAINING_SLICES), columns=["pixel_sha256"])
        return Seen(frozenset(table["pixel_sha256"].cast(pl.String).drop_nulls()))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RecordError(
            f"run {record.id} cannot be used: {TRAINING_SLICES} cannot be read; restore its "
            f"folder from a copy, or train it again.",
            subject=record,
        ) from error


def _places_since(seen: Sequence[bool]) -> list[int | None]:
    """For each place, how many places back the last one was seen; None where none was."""
    places: list[int | None] = []
    last: int | None = None
    for place, hit in enumerate(seen):
        last = place if hit else last
        places.append(None if last is None else place - last)
    return places


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

    Of a slice that is cut into tiles, every pixel counts once: in the tile whose edge is farther.

    Args:
        trainer: Whose model predicts.
        examples: Where inputs and masks come from.
        sources: Whose slices the positions mean.
        positions: Which slices.
        batch: Slices in one forward pass.
        pictures: Where to keep predicted and true labels as PNG, or None.
        seen: What the model has learned from.
    """
    counted: dict[int, dict[str, Counts]] = {}
    for _, slices in trainer.predict(examples.steps(chunks(positions, batch))):
        for position, predicted, true in slices:
            source, item = sources.at(position)
            classes = source.dataset.classes
            own = _own_part(item, *predicted.shape)
            found, wanted = predicted[own], true[own]
            counted[position] = {FOREGROUND: Counts.of(found, wanted)} | {
                name: Counts.of_class(found, wanted, classes.names.index(name))
                for name in classes.scored
            }
            if pictures is not None:
                for kind, labels in (("predictions", predicted), ("masks", true)):
                    file = PurePosixPath(kind, source.dataset.name, f"{item.id}.png")
                    shown = classes.shown(labels.to("cpu", torch.uint8).numpy())
                    Image.fromarray(shown).save(pictures.path(str(file)))
    distances = {
        source.dataset.name: seen.distances(source.dataset.of_whole_slices)
        for source in sources.items
    }
    totals: dict[tuple[str, str, str], list[Counts]] = {}
    splits: dict[tuple[str, str], str] = {}
    for position in positions:
        source, item = sources.at(position)
        name, whole = source.dataset.name, item.whole
        splits[name, whole.id] = whole.split or "all"
        for label, count in counted[position].items():
            totals.setdefault((name, whole.id, label), []).append(count)
    return [
        {
            "eval_on": name,
            "split": splits[name, slice_id],
            "slice_id": slice_id,
            "class": label,
            **asdict(Counts.total(counts)),
            "slices_from_training": distances[name][slice_id],
        }
        for (name, slice_id, label), counts in totals.items()
    ]


def _own_part(item: Slice, rows: int, columns: int) -> tuple[slice, slice]:
    """The pixels of a slice at training size that no other tile counts."""
    if item.tile is None:
        return slice(None), slice(None)
    part, own = item.tile.part, item.tile.own
    down, across = rows / part.rows, columns / part.columns
    top, left = own.row - part.row, own.column - part.column
    return (
        slice(round(top * down), round((top + own.rows) * down)),
        slice(round(left * across), round((left + own.columns) * across)),
    )


def slice_table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The rows of :func:`score_slices` as a table."""
    return pl.DataFrame(rows, schema_overrides={"slices_from_training": pl.Int64})


def iou_of(rows: Iterable[Mapping[str, Any]]) -> float:
    """Foreground IoU over the pixel totals of some rows; rows of single classes do not count."""
    whole = (row for row in rows if row["class"] == FOREGROUND)
    return Counts.total(Counts(r["tp"], r["fp"], r["fn"], r["tn"]) for r in whole).iou
