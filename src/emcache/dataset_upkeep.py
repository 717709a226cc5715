"""Removing, renaming and moving datasets; records stay, and what they say follows the pixels."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import polars as pl

from emcache.datasets import Dataset, load_dataset, open_file_index, read_dataset, slice_table_rows
from emcache.errors import DatasetError, EmcacheError
from emcache.progress import Reporter
from emcache.records import Record, list_record_ids, new_record, read_record
from emcache.registration import described, stored_root
from emcache.workspace import FIRST_NAME, Workspace

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
    if by_hand:
        workspace.set_dataset_option(new, FIRST_NAME, old)
    else:
        workspace.rename_dataset(old, new)
    with new_record(workspace.runs, RENAME) as draft:
        draft.config = {"old_name": old, "new_name": new}
        record = draft.finish()
    renamed = load_dataset(workspace, new, reporter)
    with new_record(workspace.runs, "dataset") as draft:
        draft.config = described(renamed, workspace.dataset_options(new), None)
        rows = slice_table_rows(renamed.slices, renamed.root)
        draft.write_table("slices.parquet", pl.DataFrame(rows, infer_schema_length=None))
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
        EmcacheError: As for :func:`emcache.registration.add_dataset`.
    """
    options = dict(workspace.dataset_options(name))
    options["root"] = stored_root(workspace, root)
    index = open_file_index(workspace)
    moved = read_dataset(name, options, workspace.root, index, reporter)
    before = _newest_slices(workspace, name)
    if before is not None:
        now = {item.id: item.pixel_sha256 for item in moved.slices}
        if now != before:
            differing = sorted(
                name for name in {*now, *before} if now.get(name) != before.get(name)
            )
            raise DatasetError(
                f"{root} holds other slices than {name} had ({len(differing)} differ, "
                f"{', '.join(differing[:3])} among them); add them as another dataset, or name the "
                f"folder that the slices are in now.",
                subject=root,
            )
    workspace.set_dataset_option(name, "root", options["root"])
    return moved


def _known_pixels(workspace: Workspace, name: str) -> set[str]:
    """Hashes of all slices that records of datasets have by a name."""
    pixels: set[str] = set()
    for record in _records_of(workspace, name):
        pixels.update(pl.read_parquet(record.file("slices.parquet"))["pixel_sha256"].to_list())
    return pixels


def _newest_slices(workspace: Workspace, name: str) -> dict[str, str] | None:
    """Hashes by slice, of the newest record of a dataset."""
    for record in reversed(_records_of(workspace, name)):
        table = pl.read_parquet(record.file("slices.parquet"))
        return dict(table.select("slice_id", "pixel_sha256").iter_rows())
    return None


def _records_of(workspace: Workspace, name: str) -> list[Record]:
    found = []
    for record_id in list_record_ids(workspace.runs):
        if record_id[:-7].endswith("-dataset"):
            with suppress(EmcacheError):
                record = read_record(workspace.runs / record_id)
                if record.config.get("dataset") == name and record.has("slices.parquet"):
                    found.append(record)
    return found
