"""Scores of slices as pixel counts, and the label pictures that go with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from emcache.counts import Counts
from emcache.examples import Examples
from emcache.records import Draft
from emcache.sampling import chunks
from emcache.sources import Sources
from emcache.training import Trainer


def score_slices(
    trainer: Trainer,
    examples: Examples,
    sources: Sources,
    positions: Sequence[int],
    batch: int,
    pictures: Draft | None,
) -> list[dict[str, Any]]:
    """Predict slices and count; one row of ``slice_metrics.parquet`` a slice.

    Args:
        trainer: Whose model predicts.
        examples: Where inputs and masks come from.
        sources: Whose slices the positions mean.
        positions: Which slices.
        batch: Slices in one forward pass.
        pictures: Where to keep predicted and true labels as PNG, or None.
    """
    rows = {}
    for _, slices in trainer.predict(examples.steps(chunks(positions, batch))):
        for position, predicted, true in slices:
            source, item = sources.at(position)
            rows[position] = {
                "eval_on": source.dataset.name,
                "split": item.split or "all",
                "slice_id": item.id,
                "class": "foreground",
                **asdict(Counts.of(predicted, true)),
            }
            if pictures is not None:
                for kind, labels in (("predictions", predicted), ("masks", true)):
                    name = PurePosixPath(kind, source.dataset.name, f"{item.id}.png")
                    _save_labels(pictures, str(name), labels.to("cpu", torch.uint8).numpy())
    return [rows[position] for position in positions]


def iou_of(rows: Iterable[Mapping[str, Any]]) -> float:
    """Foreground IoU over the pixel totals of some rows."""
    return Counts.total(Counts(r["tp"], r["fp"], r["fn"], r["tn"]) for r in rows).iou


def _save_labels(draft: Draft, name: str, labels: UInt8[np.ndarray, "row col"]) -> None:
    """Write a label image that can be seen: foreground 255."""
    Image.fromarray((labels > 0).astype(np.uint8) * 255).save(draft.path(name))
