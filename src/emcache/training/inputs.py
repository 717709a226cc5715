"""What trainings and evaluations read: cached tokens, or slices that go through the backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emcache.cache.alignment import Moments, fit, moments_of, moves_tokens
from emcache.cache.extract import run_extraction
from emcache.cache.feature_jobs import ensure_recorded
from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import FeatureRequest, choose_feature_set
from emcache.cache.labels import ensure_labels, label_key
from emcache.cache.plan import Job, plan_extraction
from emcache.cache.recipe import Grid
from emcache.data.dataset import Selection
from emcache.errors import StoreError, UsageError
from emcache.models.weights import Weights
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace
from emcache.training.batches import (
    LabelledFeatures,
    PixelReader,
    Reader,
    SizedSlice,
    TokenReader,
)
from emcache.training.protocol import Protocol
from emcache.training.sampling import Source, Sources

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
class InputsRequest:
    """Which inputs a training or an evaluation asks for."""

    sources: Sources
    features: FeatureRequest
    """What is not named must be unambiguous in the cache."""
    device: str
    """Where a backbone runs: at every step, or to extract what is missing."""
    protocol: Protocol
    """Of the training: says how tokens are aligned."""
    reference: Moments | None = None
    """The domain that alignment leads to; None for the first source."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a training or an evaluation reads of its sources, planned; nothing is made yet."""

    description: Mapping[str, Any]
    """``backbone``, ``weights``, ``longest_edge``, ``patch``, ``dim`` and others, which all sources
    have in common."""
    recipe: Mapping[str, Any]
    """Everything that decides a token, as fingerprints hold it."""
    fingerprints: tuple[str, ...]
    """Of the (bare) backbone's tokens of each source."""
    label_keys: tuple[str, ...]
    """Of each source's labels."""
    grids: tuple[tuple[Grid, ...], ...]
    """Tokens of each source's slices, in rows and columns."""
    feature_sets: tuple[str, ...]
    """Names of the feature sets, where tokens come from the cache."""
    weights: Weights | None
    """Of a backbone that runs at every step; None where tokens come from the cache."""
    open: Callable[[Reporter], Reader]
    """Makes what is missing."""


def plan_cached_tokens(workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
    """Tokens of every source from the cache; what is not there is extracted on opening.

    Raises:
        StoreError: Several feature sets fit, or those of the datasets do not fit together.
        UsageError: Something must be extracted, and no backbone was named.
    """
    planned = [_plan(workspace, source, request, reporter) for source in request.sources.items]
    _check_same_recipe(planned)
    first = planned[0]
    return Inputs(
        first.description,
        first.recipe,
        tuple(item.known.fingerprint for item in planned),
        tuple(_label_key(item.source, first.recipe, item.grids) for item in planned),
        tuple(item.grids for item in planned),
        tuple(item.known.name for item in planned),
        None,
        lambda reporter: _open_tokens([item.make(reporter) for item in planned], request),
    )


def plan_pixels(workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
    """The slices of every source at their training size; nothing is read from the cache.

    Raises:
        UsageError: No backbone was named.
        EmcacheError: Of the dataset, the backbone, its weights or the device.
    """
    sources, jobs = request.sources, []
    if request.features.backbone is None:
        raise UsageError("adapters need a backbone to sit in; name one, as dinov2-small.")
    if moves_tokens(request.protocol.align):
        raise UsageError(
            f"tokens move while their backbone is adapted, so they cannot be aligned by "
            f"{request.protocol.align}; leave align out, or choose batch-norm.",
            subject="align",
        )
    for source in sources.items:
        name = source.dataset.name
        options = request.features.extract_options(name, request.device)
        jobs.append(plan_extraction(workspace, Selection(name, None), options, reporter))
    first, recipe = jobs[0], jobs[0].recipe.identity()
    grids = tuple(tuple(place.grid for place in job.places) for job in jobs)
    slices = [
        SizedSlice(item, grid, source.dataset.classes)
        for source, own in zip(sources.items, grids, strict=True)
        for item, grid in zip(source.slices, own, strict=True)
    ]
    return Inputs(
        first.description(),
        recipe,
        tuple(job.fingerprint for job in jobs),
        tuple(map(_label_key, sources.items, [recipe] * len(jobs), grids)),
        grids,
        (),
        first.weights,
        lambda _: PixelReader(slices, first.spec.patch),
    )


def _open_tokens(features: Sequence[LabelledFeatures], request: InputsRequest) -> TokenReader:
    """The tokens of every source, each through the transform of its domain."""
    protocol, sources = request.protocol, request.sources.items
    if not moves_tokens(protocol.align):
        return TokenReader(features)
    domains = []
    for source, item in zip(sources, features, strict=True):
        chosen = [i for i, s in enumerate(source.slices) if s.split == protocol.align_on]
        domains.append(moments_of(source.dataset.first_name, item.feature_set.tokens, chosen))
    reference = request.reference or domains[0]
    transforms = [
        fit(protocol.align, domain, reference, protocol.align_shrinkage) for domain in domains
    ]
    return TokenReader(features, transforms, domains)


def _label_key(source: Source, recipe: Mapping[str, Any], grids: Sequence[Grid]) -> str:
    """Key of a source's labels at training size."""
    return label_key(source.slices, source.dataset.classes, recipe["preprocessing"], grids)


@dataclass(frozen=True, slots=True)
class _PlannedFeatures:
    """The features of one source: there already, or to be extracted."""

    workspace: Workspace
    source: Source
    known: Job | FeatureSet

    @property
    def description(self) -> Mapping[str, Any]:
        known = self.known
        return known.description() if isinstance(known, Job) else known.description

    @property
    def recipe(self) -> Mapping[str, Any]:
        known = self.known
        if isinstance(known, Job):
            return known.recipe.identity()
        recipe: Mapping[str, Any] = known.manifest["recipe"]
        return recipe

    @property
    def grids(self) -> tuple[Grid, ...]:
        places = self.known.places if isinstance(self.known, Job) else self.known.slices
        return tuple(place.grid for place in places)

    def make(self, reporter: Reporter) -> LabelledFeatures:
        """Extract what is missing, and open features and labels."""
        known, dataset = self.known, self.source.dataset
        if isinstance(known, Job):
            reporter.say(
                f"No features of {dataset.name} for {known.spec.name} yet: extracting first."
            )
            known = run_extraction(known, reporter).feature_set
        else:
            ensure_recorded(self.workspace, known, reporter)
        labels = ensure_labels(known, self.source.slices, dataset.classes, reporter)
        return LabelledFeatures(known, labels)


def _plan(
    workspace: Workspace, source: Source, request: InputsRequest, reporter: Reporter
) -> _PlannedFeatures:
    name = source.dataset.name
    known: Job | FeatureSet | None = choose_feature_set(workspace, source.dataset, request.features)
    if known is None:
        options = request.features.extract_options(name, request.device)
        known = plan_extraction(workspace, Selection(name, None), options, reporter)
    return _PlannedFeatures(workspace, source, known)


def _check_same_recipe(planned: Sequence[_PlannedFeatures]) -> None:
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
            subject=(first.known.name, other.known.name),
        )
