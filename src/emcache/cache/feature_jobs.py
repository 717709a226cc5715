"""The extraction that made a feature set, from what its manifest states."""

from __future__ import annotations

from pathlib import Path

from emcache.cache.encoding import BASIS_FILE, load_basis
from emcache.cache.extract import run_extraction
from emcache.cache.feature_set import FeatureSet, load_feature_manifest
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.cache.recipe import LAST
from emcache.data.dataset import Selection
from emcache.data.greys import grey_rule_of
from emcache.data.tiling import tiling_of
from emcache.errors import EmcacheError
from emcache.models.tuned import find_tuned
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace


def job_of(workspace: Workspace, folder: Path, reporter: Reporter) -> Job:
    """The job that makes a feature set again, if its slices and weights are what they were.

    Args:
        workspace: Whose cache it stands in.
        folder: The feature set; its manifest is read, and nothing else of it.
        reporter: Receives progress.

    Raises:
        EmcacheError: Its dataset, weights, adapter or basis have gone.
    """
    manifest = load_feature_manifest(folder)[0]
    facts = manifest["description"]
    run = facts.get("adapter_run")
    adapter = None if run is None else find_tuned(workspace.runs / run, run)
    options = ExtractOptions(
        facts["backbone"],
        facts["weights"],
        facts["longest_edge"],
        facts["dtype"],
        facts["precision"],
        facts["device"],
        pixel_size_nm=facts["pixel_size_nm"],
        adapter=adapter,
        layer=facts.get("layer", LAST),
        shift=facts.get("shift", 1),
        greys=grey_rule_of(manifest["recipe"]["preprocessing"]),
        tiling=tiling_of(facts),
        basis=None if facts.get("components") is None else load_basis(folder / BASIS_FILE),
    )
    selection = Selection(facts["dataset"], facts["split"])
    return plan_extraction(workspace, selection, options, reporter)


def ensure_recorded(workspace: Workspace, feature_set: FeatureSet, reporter: Reporter) -> None:
    """Write the record of a feature set whose maker was killed just before it could.

    Args:
        workspace: Whose cache it stands in.
        feature_set: One that is about to be used.
        reporter: Receives a message if its record can no longer be written.
    """
    if (workspace.runs / feature_set.manifest["extraction"]["record_id"]).is_dir():
        return
    try:
        job = job_of(workspace, feature_set.folder, reporter)
    except EmcacheError as error:
        reporter.say(f"The record of {feature_set.name} is missing and stays so: {error}")
        return
    if (job.name, job.fingerprint) == (feature_set.name, feature_set.fingerprint):
        # It finds the feature set, and that its record is not there.
        run_extraction(job, reporter)
