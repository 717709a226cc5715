"""Adding a dataset to a workspace: read everything first, then write its table and its record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from emcache.datasets import Dataset, open_file_index, read_dataset, slice_table_rows
from emcache.errors import DatasetError
from emcache.progress import Reporter
from emcache.records import Record, new_record
from emcache.workspace import Workspace, check_dataset_name


def add_dataset(
    workspace: Workspace,
    name: str,
    layout: str,
    root: Path,
    extras: Mapping[str, Any],
    reporter: Reporter,
) -> tuple[Dataset, Record]:
    """Check every slice and mask of a dataset and add it; a failure leaves nothing behind.

    Args:
        workspace: Where to add it.
        name: Its name.
        layout: One of :data:`emcache.layouts.LAYOUTS`.
        root: Its folder; stored absolute, or relative where it lies in the workspace.
        extras: Further options of the layout; None values are left out.
        reporter: Hears of the reading.

    Raises:
        UsageError: A name or layout that cannot be.
        DatasetError: The name is taken, or the root holds nothing that fits.
        PairingError: Leftovers on either side.
        ImageError: A file that cannot be read, or a mask of another size.
    """
    check_dataset_name(name)
    if name in workspace.dataset_names():
        raise DatasetError(
            f"there is a dataset {name!r} already in {workspace.config_path}; choose another name, "
            f"or remove its table from that file first.",
            subject=name,
        )
    options = {
        "layout": layout,
        "root": _stored_root(workspace, root),
        **{key: value for key, value in extras.items() if value is not None},
    }
    dataset = read_dataset(name, options, workspace.root, open_file_index(workspace), reporter)
    with new_record(workspace.runs, "dataset") as draft:
        draft.config = {
            "dataset": name,
            "layout": layout,
            "root": options["root"],
            "pairing": dataset.pairing,
            "n_slices": len(dataset.slices),
            "n_labelled": len(dataset.labelled),
            "grey_pixels": dataset.grey_pixels,
            "mask_threshold": dataset.mask_threshold,
            "voxel_size_nm": None if dataset.voxel_size_nm is None else list(dataset.voxel_size_nm),
        }
        rows = slice_table_rows(dataset.slices, dataset.root)
        draft.write_table("slices.parquet", pl.DataFrame(rows, infer_schema_length=None))
        workspace.add_dataset(name, options)
        record = draft.finish()
    return dataset, record


def _stored_root(workspace: Workspace, root: Path) -> str:
    resolved = root.resolve()
    if resolved.is_relative_to(workspace.root):
        return resolved.relative_to(workspace.root).as_posix()
    return str(resolved)
