"""Prediction: masks of unseen slices, at their own size, in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from emcache.data.images import PageSize, outline_overlay, read_image
from emcache.data.plane import Part, Plane
from emcache.data.resize import GreyWindow, Preprocessing
from emcache.data.sections import read_reduced_image, reduction
from emcache.data.volumes.base import VoxelSize
from emcache.data.volumes.open import open_volume
from emcache.errors import ImageError
from emcache.evaluation.outputs import PlannedFile, Writers, plan_files, writers
from emcache.evaluation.predictor import (
    PredictionOptions,
    Predictor,
    is_deep,
    preprocessing_for,
)
from emcache.evaluation.trained_run import TrainedRun, find_run
from emcache.evaluation.volumes import volume_writers
from emcache.models.device import pick_device
from emcache.progress import Reporter
from emcache.storage.records import Record, new_record
from emcache.storage.workspace import Workspace


def predict(
    workspace: Workspace,
    run: str,
    inputs: Sequence[Path],
    out: Path,
    options: PredictionOptions,
    reporter: Reporter,
) -> tuple[tuple[PlannedFile, ...], Record]:
    """Segment images by a trained run.

    Masks are written at each image's own size: the logits are resized to it, not the mask. A
    multi-page file gives one multi-page mask. Of a run that was trained on tiles, the logits of
    overlapping tiles are put together (:mod:`emcache.evaluation.stitching`), and a large slice is
    read, predicted and written a row of tiles at a time.

    Args:
        workspace: Where the run is.
        run: Its identifier, or a part of it.
        inputs: Image files, and folders of them.
        out: Folder to write into.
        options: What to write.
        reporter: Receives progress.

    Returns:
        The inputs with where their results are, and the record.

    Raises:
        RecordError: No such run, or today's weights are not those it was trained with.
        ImageError: An input that cannot be read.
        UsageError: Inputs whose masks would have the same name, or overwrite an input.
    """
    trained = find_run(workspace, run)
    device = pick_device(options.device)
    files = plan_files(
        inputs,
        out,
        probabilities=options.probabilities,
        overlays=options.overlays,
        overwrite=options.overwrite,
        ome_zarr=options.ome_zarr,
    )
    preprocessing = preprocessing_for(trained, options)
    window = options.grey_window or trained.grey_window
    for file in files:
        _check_sizes(file, preprocessing)
        _check_depth(file, window, trained)
    predictor = Predictor.open(workspace, trained, options, reporter)
    names = dict(enumerate(trained.classes.names))
    outside, objects = 0, []
    with (
        new_record(workspace.runs, "predict") as draft,
        reporter.task("Predicting", sum(len(f.pages) for f in files), "slices") as task,
    ):
        for file in files:
            is_volume, voxel = file.objects is not None, _voxel_size(file, options)
            with volume_writers(file, names, voxel) if is_volume else writers(file) as write:
                for plane, size in zip(file.planes, file.pages, strict=True):
                    outside += _write_slice(predictor, plane, size, write)
                    task.advance()
            objects += [
                table.select(pl.lit(str(file.input)).alias("input"), pl.all())
                for table in write.objects
            ]
        draft.config = {
            "run_id": trained.id,
            "out": str(out.resolve()),
            "inputs": [str(file.input) for file in files],
            "n_slices": (count := sum(len(file.pages) for file in files)),
            "n_outside": outside,
            "n_objects": sum(table.height for table in objects) if objects else None,
            "device": device.type,
        }
        if objects:
            draft.write_table("objects.parquet", pl.concat(objects))
        record = draft.finish()
    if outside:
        reporter.say(
            f"Warning: {outside} of {count} slices are unlike those that run {trained.id} was "
            f"trained on, so its masks may mean little; `emcache gap --of` says how far they lie."
        )
    return files, record


def _write_slice(predictor: Predictor, plane: Plane, size: PageSize, write: Writers) -> bool:
    """Predict and write one slice, a few rows after the other.

    Returns:
        Whether it is unlike those of the training.
    """
    window, factor = predictor.window_of(plane), reduction(*size)
    written, outside = 0, False
    small, picture = [], None
    pages = [pages for pages in (write.mask, write.probability, write.image) if pages is not None]
    for page in pages:
        page.begin(size)
    for rows in predictor.rows_of(plane, size):
        count = len(rows.labels)
        write.mask.append(rows.mask if write.image is None else rows.labels)
        if write.probability is not None:
            write.probability.append(rows.probability)
        if write.image is not None:
            part = replace(plane, part=Part(written, 0, count, size.columns))
            write.image.append(read_image(part, window) if rows.image is None else rows.image)
        # Every n-th row of the slice, which a picture of a large one is made of; a view would keep
        # all rows.
        small.append(rows.labels[-written % factor :: factor, ::factor].copy())
        written, outside = written + count, rows.outside
        if factor == 1:
            picture = rows.image
    for page in pages:
        page.end()
    if write.overlay is not None:
        shown = read_reduced_image(plane, window) if picture is None else picture
        write.overlay(outline_overlay(shown, None, np.concatenate(small)))
    return outside


def _voxel_size(file: PlannedFile, options: PredictionOptions) -> VoxelSize | None:
    if options.voxel_size_nm is not None:
        z, y, x = options.voxel_size_nm
        return z, y, x
    plane = file.planes[0]
    return open_volume(plane.path, plane.inner).voxel_size_nm


def _check_sizes(file: PlannedFile, preprocessing: Preprocessing) -> None:
    """Every slice must have room for a patch, and that is known before the first is predicted."""
    tiling = preprocessing.tiling
    for size in dict.fromkeys(file.pages):
        try:
            sides = size if tiling is None else [min(side, tiling.edge) for side in size]
            preprocessing.grid_of(*sides)
        except ImageError as error:
            raise ImageError(f"{file.input}: {error}", subject=file.input) from error


def _check_depth(file: PlannedFile, window: GreyWindow | None, trained: TrainedRun) -> None:
    if window is None and is_deep(file.planes[0]):
        raise ImageError(
            f"{file.input} has more than 8 bits, and run {trained.id} was trained on 8 bits; say "
            f"which values are black and white with --grey-window.",
            subject=file.input,
        )
