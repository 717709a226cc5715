"""Boundary and object scores of runs, from the masks that they predicted and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool
from PIL import Image

from emcache.data.classes import IGNORED, ClassRule
from emcache.data.dataset import load_dataset
from emcache.errors import EmcacheError, RecordError, UsageError
from emcache.evaluation.evaluate import named_runs
from emcache.evaluation.shapes import boundary_scores, dice, object_scores
from emcache.evaluation.trained_run import TrainedRun, find_run
from emcache.progress import Reporter
from emcache.storage.records import Record, list_record_ids, new_record, read_record
from emcache.storage.workspace import Workspace

KIND = "metrics"
TABLE = "shape_metrics.parquet"

_SLICE, _STACK = 2, 3
_SCHEMA = {
    "eval_on": pl.String,
    "split": pl.String,
    "dimensions": pl.Int64,
    "slice_id": pl.String,
    "n_slices": pl.Int64,
    "dice": pl.Float64,
    "boundary_f": pl.Float64,
    "hausdorff_95": pl.Float64,
    "n_true": pl.Int64,
    "n_predicted": pl.Int64,
    "matched_50": pl.Int64,
    "iou_sum_50": pl.Float64,
    "matched_75": pl.Int64,
    "iou_sum_75": pl.Float64,
    "adapted_rand_error": pl.Float64,
    "voi_split": pl.Float64,
    "voi_merge": pl.Float64,
}


@dataclass(frozen=True, slots=True)
class MetricOptions:
    """What the user may choose about boundary and object scores.

    Raises:
        UsageError: A tolerance below 0, or objects of less than a pixel.
    """

    tolerance: float = 2.0
    """Pixels of the size that slices are scored at, within which two boundaries agree."""
    smallest: int = 1
    """Pixels of the smallest object that counts."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1e6:
            raise UsageError(
                f"--tolerance {self.tolerance:g} is no distance; expected pixels, 0 or more.",
                subject=self.tolerance,
            )
        if self.smallest < 1:
            raise UsageError(
                f"--smallest-object {self.smallest} is no size; expected pixels, 1 or more.",
                subject=self.smallest,
            )


def measure_runs(
    workspace: Workspace, names: Sequence[str], options: MetricOptions, reporter: Reporter
) -> list[Record]:
    """Measure several runs, one after the other; a record each.

    Args:
        workspace: Where.
        names: Identifiers of runs, parts of them, or what runs were trained on.
        options: How.
        reporter: Receives progress.

    Raises:
        RecordError: No such run, or one that kept no predictions.
    """
    runs = named_runs(workspace, names)
    return [measure_run(workspace, run, options, reporter) for run in runs]


def measure_run(
    workspace: Workspace, run: str, options: MetricOptions, reporter: Reporter
) -> Record:
    """Boundary and object scores of the masks that a run's training and evaluations kept.

    Every slice is measured by itself. Slices of one split that follow one another in their stack
    are measured as a volume too; where sizes differ, or the dataset is not here any more, they are
    not.

    Args:
        workspace: Where.
        run: Identifier of the run, or a part of it.
        options: How.
        reporter: Receives progress.

    Returns:
        The record; its ``shape_metrics.parquet`` has a row for each slice and each volume.

    Raises:
        RecordError: No such run, or it kept no predictions.
    """
    trained = find_run(workspace, run)
    kept = _kept_slices(workspace, trained)
    if not kept:
        tested = trained.config["train_on"].replace(" + ", " --on ")
        raise RecordError(
            f"run {trained.id} kept no predictions; make them with `emcache evaluate {trained.id} "
            f"--on {tested}:test --save-predictions`.",
            subject=trained.id,
        )
    rows: list[dict[str, Any]] = []
    with (
        new_record(workspace.runs, KIND) as draft,
        reporter.task("Measuring", len(kept), "slices") as task,
    ):
        for (name, split), own in groupby(kept, key=lambda item: (item.eval_on, item.split)):
            items = list(own)
            # Names before a dataset was renamed, and datasets that have gone, have no stacks here.
            places = _places(workspace, name)
            classes = trained.classes
            for volume in _volumes(items, places):
                masks = []
                for item in volume:
                    masks.append(item.read(classes))
                    rows.append(_slice_row(name, split, item.slice_id, masks[-1], options))
                    task.advance()
                if len(masks) > 1 and len({true.shape for true, _ in masks}) == 1:
                    both = np.stack([m[0] for m in masks]), np.stack([m[1] for m in masks])
                    first = volume[0].slice_id
                    rows.append(
                        {
                            **_row(name, split, _STACK, first, both, options.smallest),
                            "n_slices": len(masks),
                        }
                    )
        draft.config = {
            "run_id": trained.id,
            "measured": sorted({item.record.id for item in kept}),
            "tolerance": options.tolerance,
            "smallest_object": options.smallest,
        }
        draft.write_table(TABLE, pl.DataFrame(rows, _SCHEMA, orient="row"))
        return draft.finish()


class _Kept(NamedTuple):
    """A slice whose predicted and true masks a record keeps."""

    record: Record
    eval_on: str
    split: str
    slice_id: str

    def read(self, classes: ClassRule) -> tuple[Bool[np.ndarray, "r c"], Bool[np.ndarray, "r c"]]:
        """True and predicted foreground; pixels that are ignored are background in both."""
        true, predicted = (
            classes.labels_shown(np.asarray(Image.open(self.record.file(self.file(kind)))))
            for kind in ("masks", "predictions")
        )
        seen = true != IGNORED
        return (true > 0) & seen, (predicted > 0) & (predicted != IGNORED) & seen

    def file(self, kind: str) -> str:
        return f"{kind}/{self.eval_on}/{self.slice_id}.png"


def _kept_slices(workspace: Workspace, trained: TrainedRun) -> list[_Kept]:
    """Slices in the order that they were scored in: of the training, then of evaluations.

    Of several evaluations of one split the newest counts, and the training before them, as in the
    warehouse.
    """
    records = [trained.record]
    for record_id in reversed(list_record_ids(workspace.runs)):
        if "-evaluate-" in record_id:
            record = read_record(workspace.runs / record_id, verify_files=False)
            if record.config.get("run_id") == trained.id:
                records.append(read_record(record.folder))
    kept: dict[tuple[str, str], list[_Kept]] = {}
    for record in records:
        found: dict[tuple[str, str], list[_Kept]] = {}
        table = pl.read_parquet(record.file("slice_metrics.parquet"))
        for name, split, slice_id in (
            table.select("eval_on", "split", "slice_id").unique(maintain_order=True).rows()
        ):
            item = _Kept(record, name, split, slice_id)
            if record.has(item.file("predictions")):
                found.setdefault((name, split), []).append(item)
        kept = {**found, **kept}
    return [item for items in kept.values() for item in items]


_Place = tuple[object, int]


def _places(workspace: Workspace, name: str) -> Mapping[str, _Place]:
    """Of every slice of a dataset its stack, and its place in it; none where it has gone."""
    try:
        slices = load_dataset(workspace, name).slices
    except EmcacheError:
        return {}
    counts: dict[object, int] = {}
    places = {}
    for item in slices:
        stack = item.image.stack
        counts[stack] = counts.get(stack, -1) + 1
        places[item.id] = (stack, counts[stack])
    return places


def _volumes(items: Sequence[_Kept], places: Mapping[str, _Place]) -> Iterator[list[_Kept]]:
    """Runs of slices that follow one another in their stack."""
    volume: list[_Kept] = []
    for item in items:
        if volume:
            before, here = places.get(volume[-1].slice_id), places.get(item.slice_id)
            if before is None or here is None or here != (before[0], before[1] + 1):
                yield volume
                volume = []
        volume.append(item)
    if volume:
        yield volume


def _slice_row(
    name: str,
    split: str,
    slice_id: str,
    masks: tuple[Bool[np.ndarray, "row col"], Bool[np.ndarray, "row col"]],
    options: MetricOptions,
) -> dict[str, Any]:
    boundaries = asdict(boundary_scores(*masks, options.tolerance))
    return {**_row(name, split, _SLICE, slice_id, masks, options.smallest), **boundaries}


def _row(
    name: str,
    split: str,
    dimensions: int,
    slice_id: str,
    masks: tuple[Bool[np.ndarray, "*size"], Bool[np.ndarray, "*size"]],
    smallest: int,
) -> dict[str, Any]:
    return {
        "eval_on": name,
        "split": split,
        "dimensions": dimensions,
        "slice_id": slice_id,
        "n_slices": 1,
        "dice": dice(*masks),
        "boundary_f": None,
        "hausdorff_95": None,
        **asdict(object_scores(*masks, smallest)),
    }
