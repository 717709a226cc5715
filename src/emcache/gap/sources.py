"""Where the features of a measurement come from: a run's own, or whatever the cache holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from emcache.cache.extract import run_extraction
from emcache.cache.feature_jobs import ensure_recorded
from emcache.cache.feature_set import FeatureSet, list_feature_sets
from emcache.cache.find import FeatureRequest, donors_of, fits
from emcache.cache.plan import ExtractOptions, Job
from emcache.data.dataset import Selection, load_dataset
from emcache.errors import StoreError, UsageError
from emcache.evaluation.trained_run import TrainedRun
from emcache.gap.features import SelectedFeatures
from emcache.models.tuned import find_tuned
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace

_FACTS = ("backbone", "weights", "longest_edge", "pixel_size_nm", "dtype", "precision")


def options_of_run(trained: TrainedRun, weights: str | None, device: str) -> ExtractOptions:
    """How to make the tokens that a run's head sees; of several layers, those of the last."""
    if not trained.regime.has_backbone:
        raise UsageError(
            f"run {trained.id} has no backbone, and so no tokens to measure distances of; choose "
            f"the run of a head or of a backbone.",
            subject=trained.id,
        )
    # Of several layers the deepest: distances are measured on one.
    features = replace(trained.features(weights), layer=trained.layers[-1])
    adapter = None
    if trained.regime.runs_backbone:
        adapter = find_tuned(trained.record.folder, trained.id)
        # The head read float32 tokens; float16 is enough to measure distances.
        features = replace(features, dtype="float16")
    return replace(features.extract_options(trained.id, device), adapter=adapter)


def options_of_cache(
    workspace: Workspace,
    chosen: Sequence[Selection],
    request: FeatureRequest,
    device: str,
    reporter: Reporter,
) -> ExtractOptions:
    """How the features were made that the cache holds of these slices, or as they were asked for.

    Raises:
        StoreError: The cache holds several kinds, and the request fits more than one.
        UsageError: It holds none, and no backbone was named.
    """
    wanted = {
        item.pixel_sha256
        for selection in chosen
        for item in selection.of(load_dataset(workspace, selection.dataset, reporter))
    }
    kinds: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for feature_set in list_feature_sets(workspace.cache):
        held = any(item.pixel_sha256 in wanted for item in feature_set.slices)
        if held and fits(workspace, feature_set, request):
            facts = feature_set.description
            kinds[tuple(facts.get(name) for name in (*_FACTS, "weights_sha256"))] = facts
    if not kinds:
        return request.extract_options(str(chosen[0]), device)
    if len(kinds) > 1:
        listed = "; ".join(
            ", ".join(f"{name} {facts.get(name)}" for name in _FACTS if facts.get(name) is not None)
            for facts in kinds.values()
        )
        raise StoreError(
            f"the cache holds features of these slices of {len(kinds)} kinds ({listed}); say which "
            f"with --backbone, --weights, --longest-edge, --pixel-size or --dtype.",
            subject=tuple(kinds),
        )
    (found,) = kinds.values()
    made: dict[str, Any] = {name: found.get(name) for name in _FACTS if name != "weights"}
    weights = request.weights or found["weights"]
    return replace(
        replace(request, **made, weights=weights).extract_options(str(chosen[0]), device),
        longest_edge=found["longest_edge"],
    )


def features_of(job: Job, reporter: Reporter) -> SelectedFeatures:
    """The vectors of a job's slices: in the cache already, under whatever name, or made now."""
    cache, donors = job.workspace.cache, donors_of(job)
    if not all(place in donors for place in job.places):
        reporter.say(f"No features of {job.selection} for {job.spec.name} yet: extracting first.")
        run_extraction(job, reporter)
        donors = donors_of(job)
    elif (cache / job.name).is_dir():
        ensure_recorded(job.workspace, FeatureSet.open(cache / job.name), reporter)
    return SelectedFeatures(job, donors)
