"""Removing, renaming and moving datasets; records stay, and what they say follows the pixels."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import polars as pl

from emcache.data.dataset import Dataset, load_dataset, read_dataset
from emcache.data.register import dataset_records, describe_in, stored_root
from emcache.errors import DatasetError
from emcache.progress import Reporter
from emcache.storage.file_index import open_file_index
from emcache.storage.records import Record, new_record
from emcache.storage.workspace import FIRST_NAME, Workspace

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
        reporter: Hears of files being read.

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
        reporter: Hears of files being read.

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
