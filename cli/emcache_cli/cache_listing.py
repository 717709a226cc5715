"""What is shown of the cache where nothing is computed: what there is, and what is removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from emcache.cache.feature_set import FeatureSet, feature_set_folders
from emcache.errors import EmcacheError
from emcache.maintenance.prune import prune_cache
from emcache.progress import Reporter
from emcache.storage.records import read_record
from emcache.storage.run_names import list_run_ids
from emcache.storage.workspace import Workspace


def feature_set_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """One row a feature set; one that is damaged says so."""
    runs = _runs_by_feature_set(workspace)
    rows = []
    for folder in feature_set_folders(workspace.cache):
        row = {"feature_set": folder.name, "runs": runs[folder.name]}
        try:
            feature_set = FeatureSet.open(folder)
        except EmcacheError as error:
            rows.append({**row, "state": str(error)})
            continue
        facts = feature_set.description
        rows.append(
            {
                **row,
                "state": "whole",
                "dataset": facts["dataset"],
                "split": facts["split"],
                "backbone": facts["backbone"],
                "weights": facts["weights"],
                "longest_edge": facts["longest_edge"],
                "slices": len(feature_set.slices),
                "gigabytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e9,
            }
        )
    return rows


def prune_rows(
    workspace: Workspace, names: Sequence[str], stale: bool, dry_run: bool, reporter: Reporter
) -> list[dict[str, Any]]:
    """One row for whatever was removed, or would be."""
    removed = prune_cache(workspace, names, stale=stale, dry_run=dry_run, reporter=reporter)
    total = sum(item.bytes for item in removed)
    verb = "Would remove" if dry_run else "Removed"
    reporter.say(f"{verb} {len(removed)} files and folders, {total / 1e9:.3f} GB.")
    return [
        {
            "path": item.path.relative_to(workspace.root).as_posix(),
            "what": item.what,
            "bytes": item.bytes,
        }
        for item in removed
    ]


def _runs_by_feature_set(workspace: Workspace) -> Counter[str]:
    """How many trainings name each feature set; damaged records name none."""
    runs: Counter[str] = Counter()
    for name in list_run_ids(workspace):
        try:
            record = read_record(workspace.runs / name, verify_files=False)
            runs.update(record.config["feature_sets"])
        except (EmcacheError, KeyError, TypeError):
            continue
    return runs
