"""Datasets of a workspace: added, renamed, moved and removed.

Everything is read first; then a table and a record are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from emcache.data.dataset import (
    Dataset,
    list_dataset,
    load_dataset,
    read_dataset,
    slice_table_rows,
)
from emcache.data.images import read_grey
from emcache.data.resize import DEFAULT_PERCENTILES, find_window
from emcache.data.sections import parts_of
from emcache.data.volumes.open import open_volume
from emcache.errors import DatasetError, EmcacheError
from emcache.progress import Reporter
from emcache.storage.file_index import FileIndex, open_file_index
from emcache.storage.hashing import is_utf8
from emcache.storage.records import Draft, Record, list_record_ids, new_record, read_record
from emcache.storage.workspace import CONFIG_NAME, FIRST_NAME, Workspace, check_dataset_name


def add_dataset(
    workspace: Workspace,
    name: str,
    layout: str,
    root: Path,
    extras: Mapping[str, Any],
    reporter: Reporter,
    percentiles: tuple[float, float] = DEFAULT_PERCENTILES,
) -> tuple[Dataset, Record]:
    """Check every slice and mask of a dataset and add it; a failure leaves nothing behind.

    Added once more, from the same files by the same options, it is as it was: a process that was
    killed may have been done, and whoever started it cannot know.

    Args:
        workspace: Where to add it.
        name: Its name.
        layout: One of :data:`emcache.data.layouts.LAYOUTS`.
        root: Its folder; stored absolute, or relative where it lies in the workspace.
        extras: Further options of the layout; None values are left out.
        reporter: Receives progress.
        percentiles: Of all values, become black and white where slices have more than 8 bits and
            ``grey_window`` is not given.

    Raises:
        UsageError: A name or layout that cannot be.
        DatasetError: The name is taken, the root holds nothing that fits, or two slices have the
            same pixels.
        PairingError: Leftovers on either side.
        ImageError: A file that cannot be read, or a mask of another size.
    """
    check_dataset_name(name)
    listed = name in workspace.dataset_names()
    options = {
        "layout": layout,
        "root": stored_root(workspace, root),
        **{key: value for key, value in extras.items() if value is not None},
    }
    if listed and not _agree(workspace.dataset_options(name), options):
        raise _taken(workspace, name)
    index = open_file_index(workspace)
    grey_rule = _settle_greys(name, options, workspace.root, index, percentiles, reporter)
    dataset = read_dataset(name, options, workspace.root, index, reporter)
    _check_distinct(dataset)
    if listed:
        if dict(workspace.dataset_options(name)) != options:
            raise _taken(workspace, name)
        # A table without a record is what a process leaves that was killed between the two.
        if (record := next(dataset_records(workspace, name), None)) is not None:
            before = pl.read_parquet(record.file("slices.parquet"), glob=False)
            if before.rows() != _slice_table(dataset).rows():
                raise _taken(workspace, name)
            reporter.say(f"Dataset {name} is there already, from the same files; nothing changes.")
            return dataset, record
    with new_record(workspace.runs, "dataset") as draft:
        describe_in(draft, dataset, options, grey_rule)
        if not listed:
            workspace.add_dataset(name, options)
        record = draft.finish()
    return dataset, record


def describe_in(
    draft: Draft, dataset: Dataset, options: Mapping[str, Any], grey_rule: str | None
) -> None:
    """Write what the record of a dataset says of it.

    Args:
        draft: The record.
        dataset: The dataset.
        options: Of its table in ``emcache.toml``.
        grey_rule: How its grey window was found, where it was.
    """
    draft.config = {
        "dataset": dataset.name,
        "layout": dataset.layout,
        "root": options["root"],
        "pairing": dataset.pairing,
        "n_slices": len(dataset.slices),
        "n_labelled": len(dataset.labelled),
        "grey_pixels": dataset.grey_pixels,
        "mask_threshold": dataset.classes.threshold,
        "classes": _listed_classes(dataset),
        "grey_window": options.get("grey_window"),
        "grey_rule": grey_rule,
        "voxel_size_nm": None if dataset.voxel_size_nm is None else list(dataset.voxel_size_nm),
    }
    draft.write_table("slices.parquet", _slice_table(dataset))


def _slice_table(dataset: Dataset) -> pl.DataFrame:
    rows = slice_table_rows(dataset.slices, dataset.root)
    return pl.DataFrame(rows, infer_schema_length=None)


def _listed_classes(dataset: Dataset) -> dict[str, list[int]] | None:
    """The values of each class; None where a threshold divides."""
    values = dataset.classes.values
    return None if values is None else {name: list(ids) for name, ids in values.items()}


def _taken(workspace: Workspace, name: str) -> DatasetError:
    return DatasetError(
        f"there is a dataset {name!r} already in {workspace.config_path}; choose another name, or "
        f"run `emcache dataset remove {name}` first.",
        subject=name,
    )


def _agree(stored: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether a table says what was given; a grey window may have been found for it."""
    found = {"grey_window"} - given.keys()
    return {key: value for key, value in stored.items() if key not in found} == given


def dataset_records(workspace: Workspace, name: str) -> Iterator[Record]:
    """The sound records of a dataset of that name, newest first."""
    for record_id in reversed(list_record_ids(workspace.runs)):
        if record_id[:-7].endswith("-dataset"):
            with suppress(EmcacheError):
                record = read_record(workspace.runs / record_id)
                if record.config.get("dataset") == name and record.has("slices.parquet"):
                    yield record


def _settle_greys(
    name: str,
    options: dict[str, Any],
    base: Path,
    index: FileIndex,
    percentiles: tuple[float, float],
    reporter: Reporter,
) -> str | None:
    """Find the dataset's grey window where it needs one; what was done, in words.

    The window goes into the options, so that it stands in ``emcache.toml`` from now on and does not
    move when slices are added.
    """
    if "grey_window" in options:
        return "stated"
    _, _, listing = list_dataset(name, options, base, index)
    planes = [entry.image for entry in listing.entries]
    first = open_volume(planes[0].path, planes[0].inner)
    if first.dtype in (np.uint8, np.bool_):
        return None

    def read() -> Iterator[tuple[str, Any]]:
        with reporter.task(f"Finding the greys of {name}", len(planes), "slices") as task:
            for plane in planes:
                for part in parts_of(plane):
                    yield str(plane), read_grey(part)
                task.advance()

    window, rule = find_window(read, percentiles)
    options["grey_window"] = [window.black, window.white]
    return rule


def _check_distinct(dataset: Dataset) -> None:
    """A dataset holds each slice once: a copy is scored twice, or tested on what was trained."""
    names: dict[str, str] = {}
    for item in dataset.slices:
        if item.pixel_sha256 in names:
            raise DatasetError(
                f"slices {names[item.pixel_sha256]} and {item.id} of {dataset.name} have the same "
                f"pixels; expected each slice once: remove one of them.",
                subject=(names[item.pixel_sha256], item.id),
            )
        names[item.pixel_sha256] = item.id


def stored_root(workspace: Workspace, root: Path) -> str:
    """A dataset's folder as ``emcache.toml`` holds it: relative where it lies in the workspace.

    Raises:
        DatasetError: Its name is not UTF-8.
    """
    resolved = root.resolve()
    if not is_utf8(str(resolved)):
        raise DatasetError(
            f"the name of the folder {str(resolved)!r} is not UTF-8, as {CONFIG_NAME} must be; "
            f"rename it.",
            subject=resolved,
        )
    if resolved.is_relative_to(workspace.root):
        return resolved.relative_to(workspace.root).as_posix()
    return str(resolved)


RENAME = "dataset-rename"
"""Kind of the records of renaming."""


def remove_dataset(workspace: Workspace, name: str) -> None:
    """Take a dataset out of ``emcache.toml``; files, cache and records stay.

    Raises:
        DatasetError: There is none of that name.
    """
    workspace.dataset_options(name)
    workspace.remove_dataset(name)


def rename_dataset(
    workspace: Workspace, old: str, new: str, reporter: Reporter
) -> tuple[Dataset, Record]:
    """Give a dataset another name; scores and distances of all its records go by it from now on.

    A table of ``emcache.toml`` that was renamed by hand is taken up: its records follow.

    Args:
        workspace: Where.
        old: Its name until now.
        new: Its new name.
        reporter: Receives progress, where files must be read.

    Returns:
        The dataset, and the record of the renaming.

    Raises:
        DatasetError: There is no such dataset, or the new name belongs, or belonged, to others.
        UsageError: The new name cannot be used.
    """
    by_hand = old not in workspace.dataset_names() and new in workspace.dataset_names()
    dataset = load_dataset(workspace, new if by_hand else old, reporter)
    pixels = {item.pixel_sha256 for item in dataset.slices}
    if by_hand and not _known_pixels(workspace, old) & pixels:
        raise DatasetError(
            f"there is no dataset {old!r:.100} in {workspace.config_path}, and none of its records "
            f"has slices of {new}; known: {', '.join(workspace.dataset_names())}.",
            subject=old,
        )
    foreign = _known_pixels(workspace, new) - pixels
    if foreign:
        raise DatasetError(
            f"records name other slices by {new!r} ({len(foreign)} that {dataset.name} does not "
            f"have), and their scores would mix; choose another name.",
            subject=new,
        )
    before = next(dataset_records(workspace, old), None)
    if by_hand and dataset.first_name == new:
        workspace.set_dataset_option(new, FIRST_NAME, old)
    elif not by_hand:
        workspace.rename_dataset(old, new)
    with new_record(workspace.runs, RENAME) as draft:
        draft.config = {"old_name": old, "new_name": new}
        record = draft.finish()
    renamed = load_dataset(workspace, new, reporter)
    with new_record(workspace.runs, "dataset") as draft:
        rule = None if before is None else before.config.get("grey_rule")
        describe_in(draft, renamed, workspace.dataset_options(new), rule)
    return renamed, record


def move_dataset(workspace: Workspace, name: str, root: Path, reporter: Reporter) -> Dataset:
    """Say where a dataset's folder is now; the slices must be those that it had.

    Args:
        workspace: Where.
        name: The dataset.
        root: Its folder.
        reporter: Receives progress, where files must be read.

    Raises:
        DatasetError: There is no such dataset, or the folder holds other slices.
        EmcacheError: As for :func:`emcache.data.register.add_dataset`.
    """
    options = dict(workspace.dataset_options(name))
    options["root"] = stored_root(workspace, root)
    index = open_file_index(workspace)
    moved = read_dataset(name, options, workspace.root, index, reporter)
    for record in islice(dataset_records(workspace, name), 1):
        _check_same_slices(moved, pl.read_parquet(record.file("slices.parquet")))
    workspace.set_dataset_option(name, "root", options["root"])
    return moved


def _check_same_slices(dataset: Dataset, table: pl.DataFrame) -> None:
    now = {item.id: item.pixel_sha256 for item in dataset.slices}
    before = dict(table.select("slice_id", "pixel_sha256").iter_rows())
    differing = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
    if differing:
        raise DatasetError(
            f"{dataset.root} holds other slices than {dataset.name} had ({len(differing)} differ, "
            f"{', '.join(differing[:3])} among them); add them as another dataset, or name the "
            f"folder that the slices are in now.",
            subject=dataset.root,
        )


def _known_pixels(workspace: Workspace, name: str) -> set[str]:
    """Hashes of all slices that records of datasets have by a name."""
    pixels: set[str] = set()
    for record in dataset_records(workspace, name):
        pixels.update(pl.read_parquet(record.file("slices.parquet"))["pixel_sha256"].to_list())
    return pixels
