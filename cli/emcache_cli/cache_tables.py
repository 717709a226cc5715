"""What is shown of the cache where something is computed: smaller feature sets, and repairs."""

from __future__ import annotations

from typing import Any

from emcache.cache.extract import Extraction
from emcache.cache.feature_set import feature_set_folders
from emcache.cluster.pool import Pool
from emcache.maintenance.repair import repair_feature_set, verify_feature_set
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace


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
