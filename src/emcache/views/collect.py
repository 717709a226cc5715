"""Slices with everything that is shown of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from emcache.data.classes import IGNORED, ClassRule
from emcache.data.dataset import Dataset, Selection, Slice, load_dataset
from emcache.data.resize import resize_image, resize_mask, resize_values
from emcache.data.sections import read_reduced_image, read_reduced_mask
from emcache.errors import DatasetError, EmcacheError
from emcache.evaluation.predictor import PredictionOptions, Predictor
from emcache.evaluation.trained_run import TrainedRun, find_run
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace
from emcache.training.counts import Counts
from emcache.views.choice import Pick, choose_slices, named_slices
from emcache.views.reduction import count_pixels
from emcache.views.sources import Tokens


@dataclass(frozen=True, slots=True)
class Chosen:
    """Slices of one selection that are shown."""

    selection: Selection
    dataset: Dataset
    slices: tuple[Slice, ...]
    among: int
    """Number of slices that they were chosen from."""


@dataclass(frozen=True, slots=True)
class ShownPrediction:
    """What a run makes of a slice."""

    run: str
    labels: UInt8[np.ndarray, "row col"]
    """0 background, anything else foreground, at the size of the shown picture."""
    probability: Float32[np.ndarray, "row col"]
    """Of the foreground, at the same size."""
    counts: Counts | None
    """Foreground at the slice's own size; None without a mask."""


@dataclass(frozen=True, slots=True)
class ShownSlice:
    """A slice with what is known of it."""

    selection: str
    item: Slice
    pixel_nm: tuple[float, float] | None
    """Nanometres of a row and of a column of the slice; None where unknown."""
    image: UInt8[np.ndarray, "row col"]
    """At most as large as was asked for."""
    labels: UInt8[np.ndarray, "row col"] | None
    """Of its mask, at the same size: 0 background, 255 ignored, anything else foreground."""
    tokens: Float32[np.ndarray, "token_row token_col channel"] | None
    token_pixels: Int64[np.ndarray, "token 2"] | None
    """Of each token its pixels of foreground, and those that are not ignored."""
    predictions: tuple[ShownPrediction, ...]

    @property
    def name(self) -> str:
        """Selection and slice."""
        return f"{self.selection}/{self.item.id}"


def select_slices(
    workspace: Workspace,
    selections: Sequence[Selection],
    names: Sequence[str],
    count: int,
    pick: Pick,
    reporter: Reporter,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
) -> list[Chosen]:
    """Which slices are shown of each selection; it says where some are left out.

    Args:
        workspace: Where the data are.
        selections: Which slices there are to choose from.
        names: Slices by name, as ``030`` or ``vnc/030``; none for a choice by ``pick``.
        count: How many of each selection.
        pick: How they are chosen.
        reporter: Receives what was chosen.
        scores: By selection and slice, for a choice by score.
        seed: Of a choice by chance.

    Raises:
        DatasetError: A slice or dataset that is not there.
        UsageError: A choice by score without scores.
    """
    chosen = []
    left = list(names)
    for selection in selections:
        dataset = load_dataset(workspace, selection.dataset, reporter)
        slices = selection.of(dataset)
        known = {item.id for item in slices}
        # By the slice's own name, or with that of its dataset.
        prefix = f"{selection.dataset}/"
        ids = {name: name if name in known else name.removeprefix(prefix) for name in names}
        own = [ids[name] for name in names if ids[name] in known]
        left = [name for name in left if ids[name] not in known]
        if names:
            shown = named_slices(slices, own)
        else:
            shown = choose_slices(slices, count, pick, (scores or {}).get(str(selection)), seed)
            if len(shown) < len(slices):
                few = ", ".join(item.id for item in shown)
                reporter.say(
                    f"{selection}: {len(shown)} of {len(slices)} slices, by --pick {pick}: {few}."
                )
        if shown:
            chosen.append(Chosen(selection, dataset, shown, len(slices)))
    if left:
        raise DatasetError(
            f"there is no slice {left[0]!r} in {', '.join(map(str, selections))}; expected names "
            f"as `emcache dataset show` lists them.",
            subject=left[0],
        )
    return chosen


def collect(
    workspace: Workspace,
    chosen: Sequence[Chosen],
    tokens: Tokens | None,
    runs: Sequence[str],
    edge: int,
    device: str,
    reporter: Reporter,
) -> list[ShownSlice]:
    """Read slices and masks, look up tokens, and let runs predict.

    A run that cannot predict, as its weights have gone, is left out, and it is said why.

    Args:
        workspace: Where.
        chosen: Which slices.
        tokens: Where their tokens are; None to show none.
        runs: Trained runs, by identifier or an unambiguous part.
        edge: The longest side of a shown picture, in pixels.
        device: Where to compute.
        reporter: Receives progress, and what is left out.

    Raises:
        RecordError: There is no such run.
        ImageError: A slice or mask that cannot be read.
        StoreError: Tokens that are damaged.
    """
    predictors = _Predictors(workspace, [find_run(workspace, run) for run in runs], device)
    total = sum(len(one.slices) for one in chosen)
    shown = []
    with reporter.task("Slices", total, "slices") as task:
        for one in chosen:
            for item in one.slices:
                shown.append(_show(one, item, tokens, predictors, edge, reporter))
                task.advance(1, item.id)
    return shown


class _Predicted(NamedTuple):
    run: str
    labels: UInt8[np.ndarray, "row col"]
    probability: Float32[np.ndarray, "row col"]
    counts: Counts | None


class _Predictors:
    """Runs, opened when they are first needed; one that cannot be opened is said once."""

    def __init__(self, workspace: Workspace, runs: Sequence[TrainedRun], device: str) -> None:
        self._workspace = workspace
        self._runs = runs
        self._device = device
        self._open: dict[tuple[str, str], Predictor | None] = {}

    def predict(
        self, one: Chosen, item: Slice, true: UInt8[np.ndarray, "_ _"] | None, reporter: Reporter
    ) -> list[_Predicted]:
        """What every run makes of a slice at its own size, and how it compares with the mask."""
        found = []
        for run in self._runs:
            predictor = self._predictor(run, one.dataset, reporter)
            if predictor is None:
                continue
            rows = list(predictor.rows_of(item.image, item.size))
            whole = np.concatenate([part.labels for part in rows])
            probability = np.concatenate([part.probability for part in rows])
            counts = None
            if true is not None and true.shape == whole.shape:
                counts = Counts.of(torch.from_numpy(whole), torch.from_numpy(true))
            found.append(_Predicted(run.id, whole, probability, counts))
        return found

    def _predictor(self, run: TrainedRun, dataset: Dataset, reporter: Reporter) -> Predictor | None:
        key = run.id, dataset.name
        if key not in self._open:
            self._open[key] = None
            domains = [*run.domains(), *run.norm_domains]
            options = PredictionOptions(
                voxel_size_nm=dataset.voxel_size_nm,
                grey_window=dataset.grey_window,
                device=self._device,
                align_as=dataset.name if dataset.name in domains else None,
            )
            try:
                self._open[key] = Predictor.open(self._workspace, run, options, reporter)
            except EmcacheError as error:
                reporter.say(f"Run {run.id} is not shown on {dataset.name}: {error}")
        return self._open[key]


def _show(
    one: Chosen,
    item: Slice,
    tokens: Tokens | None,
    predictors: _Predictors,
    edge: int,
    reporter: Reporter,
) -> ShownSlice:
    image = read_reduced_image(item.image, item.grey_window)
    size = _shown_size(image.shape[0], image.shape[1], edge)
    true = _true_labels(item, one.dataset.classes)
    grid = None if tokens is None else tokens.grid(str(one.selection), item)
    pixels = None
    if grid is not None and true is not None:
        pixels = count_pixels(true, IGNORED, (grid.shape[0], grid.shape[1]))
    voxel = one.dataset.voxel_size_nm
    return ShownSlice(
        str(one.selection),
        item,
        None if voxel is None else voxel[1:],
        resize_image(image, size),
        None if true is None else resize_mask(true, size),
        grid,
        pixels,
        tuple(
            ShownPrediction(
                found.run,
                resize_mask(found.labels, size),
                resize_values(found.probability, size),
                found.counts,
            )
            for found in predictors.predict(one, item, true, reporter)
        ),
    )


def _true_labels(item: Slice, classes: ClassRule) -> UInt8[np.ndarray, "row col"] | None:
    """Of a large slice every n-th pixel."""
    if item.mask is None:
        return None
    return classes.labels(read_reduced_mask(item.mask))


def _shown_size(height: int, width: int, edge: int) -> tuple[int, int]:
    scale = min(1.0, edge / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
