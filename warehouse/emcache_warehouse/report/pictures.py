"""The worst slices of a workspace with the outlines of mask and prediction."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from emcache.data.dataset import Dataset, load_dataset
from emcache.data.images import outline_overlay, read_mask
from emcache.data.plane import Plane
from emcache.data.sections import read_reduced_image
from emcache.errors import DatasetError, EmcacheError, RecordError
from emcache.storage.records import read_record
from emcache.storage.workspace import Workspace
from emcache_warehouse.report.content import Picture

JPEG = "image/jpeg"
"""Kind of what :func:`as_jpeg` gives."""

_PIXELS = 360
# What an audit keeps is at most some hundreds of pixels wide.
_MOST_KEPT = 1 << 24


def worst_pictures(
    workspace: Workspace, worst: pl.DataFrame, most: int
) -> tuple[list[Picture], str]:
    """Pictures of the slices that were segmented worst.

    Args:
        workspace: Where records and slices are.
        worst: Rows of the named query ``worst-slices``.
        most: How many, each slice once.

    Returns:
        The pictures, and a sentence on what could not be shown (empty where all could).
    """
    datasets: dict[str, Dataset] = {}
    pictures: list[Picture] = []
    missing = 0
    seen: set[tuple[str, str]] = set()
    for row in worst.iter_rows(named=True):
        key = (row["eval_on"], row["slice_id"])
        if key in seen or len(pictures) == most:
            continue
        try:
            pictures.append(_picture(workspace, row, datasets))
            seen.add(key)
        except (EmcacheError, OSError):
            # Its run kept no predictions, or its slice or record has gone since.
            missing += 1
    note = ""
    if missing:
        note = (
            f"{missing} scores of slices that went as badly are not shown: their runs kept no "
            f"predictions (train with --save-predictions), or the data has moved."
        )
    return pictures, note


def _picture(workspace: Workspace, row: Mapping[str, Any], datasets: dict[str, Dataset]) -> Picture:
    record = read_record(_below(workspace.runs, row["run_id"]), verify_files=False)
    place = str(PurePosixPath(row["eval_on"], f"{row['slice_id']}.png"))
    masks = [Plane(record.file(f"{kind}/{place}")) for kind in ("masks", "predictions")]
    if row["eval_on"] not in datasets:
        datasets[row["eval_on"]] = load_dataset(workspace, row["eval_on"])
    item = next((s for s in datasets[row["eval_on"]].slices if s.id == row["slice_id"]), None)
    if item is None:
        raise DatasetError(
            f"slice {row['slice_id']} has gone from {row['eval_on']}; add it again.",
            subject=row["slice_id"],
        )
    picture = Image.fromarray(read_reduced_image(item.image, item.grey_window))
    # Made small first: an outline on the large picture would be lost in the small one.
    picture.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    true, predicted = (read_mask(mask).astype(np.uint8) for mask in masks)
    drawn = Image.fromarray(outline_overlay(np.asarray(picture), true, predicted))
    iou = "unknown" if row["iou_fg"] is None else f"{row['iou_fg']:.3f}"
    what = f"slice {row['slice_id']} of {row['eval_on']}"
    return Picture(
        as_jpeg(drawn),
        f"{what}: IoU {iou}, {row['backbone']} {row['weights']}, trained on "
        f"{row['train_on']}, seed {row['seed']}",
        f"{what} with the outlines of its mask (blue) and of the prediction (orange)",
        JPEG,
    )


def shown_smaller(data: bytes) -> bytes | None:
    """A kept PNG as JPEG; None where it cannot be decoded, or claims more than a picture has."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.width * picture.height > _MOST_KEPT:
                return None
            return as_jpeg(picture)
    except (OSError, SyntaxError, ValueError, struct.error):
        # Pillow reports damaged files by any of these.
        return None


def _below(runs: Path, record_id: str) -> Path:
    """Folder of a record; a damaged warehouse may name any."""
    if record_id in ("", ".", "..") or "/" in record_id:
        raise RecordError(
            f"{record_id!r} names no record; run `emcache warehouse rebuild`.", subject=record_id
        )
    return runs / record_id


def as_jpeg(picture: Image.Image) -> bytes:
    """A slice as a quarter of the bytes that PNG takes; for looking at, not for counting."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=82, subsampling=0)
    return buffer.getvalue()
