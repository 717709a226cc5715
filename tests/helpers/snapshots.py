"""What two runs of the same work must have in common, and what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from emcache.maintenance.prune import find_leftovers, remove_leftovers
from emcache.storage.records import list_record_ids, read_record
from emcache.storage.workspace import find_workspace
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import check, sync

# Fields that may differ between two runs of the same work; docs/promises.md lists them.
VOLATILE = {
    "record_id", "run_id", "audit_id", "started_at", "finished_at", "seconds", "train_seconds",
    "peak_memory_bytes",
    "compute_seconds", "audits", "host", "versions", "sha256", "id", "root", "n_computed",
    "total_bytes",
}  # fmt: skip


def snapshot(root: Path) -> dict[str, Any]:
    """Everything that two runs of the same work must have in common."""
    workspace = find_workspace(root)
    sync(workspace.runs, workspace.warehouse)
    findings = check(workspace.runs, workspace.warehouse)
    assert {finding.verdict for finding in findings} == {"pass"}, findings
    remove_leftovers(find_leftovers(workspace))
    return {
        "toml": workspace.config_path.read_text(),
        "cache": cache_content(workspace.cache),
        "records": sorted(map(repr, map(record_content, _records(root)))),
        "tables": {name: table(workspace.warehouse, name) for name in TABLES},
    }


def differences(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    """What differs and nothing else: whole snapshots are too long to be read."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted({*wanted, *found}):
            yield from differences(wanted.get(key), found.get(key), f"{place}/{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and wanted != found:
        yield f"{place}: {len(wanted)} wanted, {len(found)} found"
        yield from (f"{place}: wanted {item!r:.3000}" for item in wanted if item not in found)
        yield from (f"{place}: found {item!r:.3000}" for item in found if item not in wanted)
    elif wanted != found:
        yield f"{place}: wanted {wanted!r:.3000}, found {found!r:.3000}"


TABLES = ("datasets", "slices", "feature_sets", "runs", "epochs", "slice_metrics", "leaderboard")


def table(database: Path, name: str) -> list[str]:
    frame = run_query(database, f"FROM {name}", {})
    frame = frame.drop(column for column in frame.columns if column in VOLATILE)
    # Sums depend on the order of records, which other workers may have made in another one.
    frame = frame.with_columns(pl.selectors.float().round_sig_figs(12))
    return sorted(map(repr, frame.rows()))


def cache_content(cache: Path) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for path in sorted(cache.rglob("*")) if cache.is_dir() else []:
        name = path.relative_to(cache).as_posix()
        if name[0] == "." or name == "files.json" or "/." in name or not path.is_file():
            continue
        if path.name == "manifest.json":
            content[name] = without_volatile(json.loads(path.read_bytes()))
        else:
            content[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return content


def _records(root: Path) -> list[Any]:
    runs = root / "runs"
    return [read_record(runs / name) for name in list_record_ids(runs)]


def record_content(record: Any) -> Any:
    files: dict[str, Any] = {}
    for name in sorted(record.content["files"]):
        path = record.folder / name
        if name.endswith(".parquet"):
            frame = pl.read_parquet(path)
            frame = frame.drop(column for column in frame.columns if column in VOLATILE)
            files[name] = frame.rows()
        else:
            files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return record.kind, without_volatile(record.config), files


def without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_volatile(v) for k, v in sorted(value.items()) if k not in VOLATILE}
    return [without_volatile(item) for item in value] if isinstance(value, list) else value
