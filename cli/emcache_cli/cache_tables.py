"""What is shown of the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from emcache.cache.extract import Extraction
from emcache.cache.feature_set import FeatureSet, feature_set_folders
from emcache.cluster.pool import Pool
from emcache.errors import EmcacheError
from emcache.maintenance.prune import prune_cache
from emcache.maintenance.repair import repair_feature_set, verify_feature_set
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


def conversion_row(source: str, made: Extraction) -> dict[str, Any]:
    """What became of a feature set that was made smaller."""
    feature_set = made.feature_set
    return {
        "source": source,
        "feature_set": feature_set.name,
        "slices": len(feature_set),
        "copied": made.copied,
        "explained": feature_set.description.get("explained"),
        "token_gb": feature_set.token_bytes / 1e9,
    }


def verify_and_repair(
    workspace: Workspace, repair: bool, reporter: Reporter, pool: Pool | None
) -> tuple[list[dict[str, Any]], bool]:
    """One row a feature set that is whole, one a damaged file; and whether all is whole now."""
    rows: list[dict[str, Any]] = []
    sound = True
    folders = feature_set_folders(workspace.cache)
    with reporter.task("Verifying the cache", len(folders), "feature sets") as task:
        for folder in folders:
            damages = verify_feature_set(folder, pool=pool)
            found = [
                {
                    "feature_set": item.feature_set,
                    "verdict": "fail",
                    "file": item.file,
                    "why": item.why,
                    "slices": ", ".join(item.slices) or None,
                }
                for item in damages
            ]
            if damages and repair:
                outcome = repair_feature_set(workspace, folder.name, damages, reporter)
                reporter.say(f"{folder.name}: {outcome.message}")
                for row in found:
                    row["verdict"] = "repaired" if outcome.repaired else "fail"
                sound &= outcome.repaired
            elif damages:
                sound = False
            rows += found or [
                {
                    "feature_set": folder.name,
                    "verdict": "pass",
                    "file": None,
                    "why": "every checksum matches",
                    "slices": None,
                }
            ]
            task.advance(1, folder.name)
    if not sound and not repair:
        reporter.say("Run `emcache cache verify --repair` to compute again what is damaged.")
    return rows, sound


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
