"""Cached tokens and labels of the sources of a training: planned first, then made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emcache.cache.extract import run_extraction
from emcache.cache.feature_jobs import ensure_recorded
from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import FeatureRequest, choose_feature_set
from emcache.cache.labels import ensure_labels, label_key
from emcache.cache.plan import Job, plan_extraction
from emcache.data.dataset import Selection
from emcache.errors import StoreError
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace
from emcache.training.batches import LabelledFeatures
from emcache.training.sources import Source, Sources

_RECIPE_FIELDS = (
    "backbone",
    "weights",
    "weights_sha256",
    "longest_edge",
    "pixel_size_nm",
    "dtype",
    "precision",
)


@dataclass(frozen=True, slots=True)
class PlannedFeatures:
    """The features of one source: there already, or to be extracted."""

    workspace: Workspace
    source: Source
    feature_set: FeatureSet | None
    """What the cache holds, or None."""
    job: Job | None
    """How to make it, where it is not there."""

    @property
    def name(self) -> str:
        """Folder name of the feature set."""
        return self._known.name

    @property
    def fingerprint(self) -> str:
        """Key of the feature set."""
        return self._known.fingerprint

    @property
    def description(self) -> Mapping[str, Any]:
        """``backbone``, ``weights``, ``longest_edge``, ``patch``, ``dim`` and others."""
        return self.job.description() if self.job else self._made.description

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Everything that decides a token, as the fingerprint holds it."""
        recipe: Mapping[str, Any] = (
            self.job.recipe.identity() if self.job else self._made.manifest["recipe"]
        )
        return recipe

    @property
    def label_key(self) -> str:
        """Key of the labels at training size."""
        places = self.job.places if self.job else self._made.slices
        return label_key(
            self.source.slices,
            self.source.dataset.classes,
            self.recipe["preprocessing"],
            [place.grid for place in places],
        )

    def make(self, reporter: Reporter) -> LabelledFeatures:
        """Extract what is missing, and open features and labels."""
        feature_set = self.feature_set
        if feature_set is not None:
            ensure_recorded(self.workspace, feature_set, reporter)
        if self.job is not None:
            backbone = self.job.spec.name
            reporter.say(
                f"No features of {self.source.dataset.name} for {backbone} yet: extracting first."
            )
            feature_set = run_extraction(self.job, reporter).feature_set
        assert feature_set is not None  # noqa: S101 - there already, or just made
        classes = self.source.dataset.classes
        labels = ensure_labels(feature_set, self.source.slices, classes, reporter)
        return LabelledFeatures(feature_set, labels)

    @property
    def _made(self) -> FeatureSet:
        assert self.feature_set is not None  # noqa: S101 - one of the two is there
        return self.feature_set

    @property
    def _known(self) -> Job | FeatureSet:
        return self.job or self._made


def plan_features(
    workspace: Workspace,
    sources: Sources,
    request: FeatureRequest,
    device: str,
    reporter: Reporter,
) -> tuple[PlannedFeatures, ...]:
    """Which features every source has or needs; nothing is extracted yet.

    Args:
        workspace: Where.
        sources: Whose.
        request: Which features.
        device: Where to extract what is missing.
        reporter: Receives progress.

    Raises:
        StoreError: Several feature sets fit, or those of the datasets do not fit together.
        UsageError: Something must be extracted, and no backbone was named.
    """
    planned = tuple(_plan(workspace, source, request, device, reporter) for source in sources.items)
    _check_same_recipe(planned)
    return planned


def _plan(
    workspace: Workspace, source: Source, request: FeatureRequest, device: str, reporter: Reporter
) -> PlannedFeatures:
    name = source.dataset.name
    feature_set = choose_feature_set(workspace, source.dataset, request)
    if feature_set is not None:
        return PlannedFeatures(workspace, source, feature_set, None)
    options = request.extract_options(name, device)
    job = plan_extraction(workspace, Selection(name, None), options, reporter)
    return PlannedFeatures(workspace, source, None, job)


def _check_same_recipe(planned: Sequence[PlannedFeatures]) -> None:
    """One head reads tokens of one kind."""
    first = planned[0]
    for other in planned[1:]:
        if other.recipe == first.recipe:
            continue
        differing = "; ".join(
            f"{name} {first.description.get(name)} and {other.description.get(name)}"
            for name in _RECIPE_FIELDS
            if first.description.get(name) != other.description.get(name)
        )
        raise StoreError(
            f"the features of {first.source.dataset.name} and {other.source.dataset.name} differ "
            f"({differing}); expected one backbone and size: name them with --backbone, --weights "
            f"and --longest-edge.",
            subject=(first.name, other.name),
        )
