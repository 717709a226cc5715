"""The warehouse as Parquet files with a data dictionary, for pandas, R or another engine."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import polars as pl

from emcache.errors import UsageError
from emcache.storage import atomic
from emcache_warehouse.database import identifier
from emcache_warehouse.query import run_query
from emcache_warehouse.schema import describe_schema

DICTIONARY = "data-dictionary"
"""Name of the dictionary, as Parquet and as Markdown."""


def export_warehouse(database: Path, folder: Path) -> pl.DataFrame:
    """Write every table and view as ``NAME.parquet``, and what each column means.

    Args:
        database: The warehouse's file.
        folder: A new or empty folder; it appears when everything is in it.

    Returns:
        One row for each file: its name, its rows, and what it holds.

    Raises:
        UsageError: The folder holds something already, or cannot be written.
        WarehouseError: The warehouse cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} holds something already; expected a new or empty folder: choose another.",
            subject=folder,
        )
    meanings = describe_schema(database)
    folder = folder.resolve()
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    written = []
    try:
        partial.mkdir(parents=True)
        for name in meanings["name"].unique(maintain_order=True):
            frame = run_query(database, f"FROM {identifier(name)}", {})
            frame.write_parquet(partial / f"{name}.parquet")
            about = meanings.filter(pl.col("name") == name).row(0, named=True)
            written.append(
                {
                    "file": f"{name}.parquet",
                    "kind": about["kind"],
                    "rows": frame.height,
                    "purpose": about["purpose"],
                }
            )
        meanings.write_parquet(partial / f"{DICTIONARY}.parquet")
        atomic.write_bytes(partial / f"{DICTIONARY}.md", _dictionary(meanings).encode())
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written ({error.strerror}); choose another folder.", subject=folder
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return pl.DataFrame(written)


def _dictionary(meanings: pl.DataFrame) -> str:
    lines = ["# Data dictionary", ""]
    for (name,), columns in meanings.group_by("name", maintain_order=True):
        first = columns.row(0, named=True)
        lines += [f"## `{name}` ({first['kind']})", "", first["purpose"] or "", ""]
        lines += ["| column | type | meaning |", "| --- | --- | --- |"]
        lines += [
            f"| `{row['column']}` | {row['type']} | {(row['meaning'] or '').replace('|', '/')} |"
            for row in columns.iter_rows(named=True)
        ]
        lines.append("")
    return "\n".join(lines)
