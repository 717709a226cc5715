"""What trainings and evaluations read: cached tokens, or slices that go through the backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emcache.cache.alignment import fit, moves_tokens
from emcache.cache.extract import Extraction, run_extractions
from emcache.cache.feature_jobs import ensure_recorded
from emcache.cache.feature_set import FeatureSet, find_feature_set
from emcache.cache.find import FeatureRequest, choose_feature_set
from emcache.cache.labels import ensure_labels, label_key
from emcache.cache.layers import find_layers
from emcache.cache.moments import Moments
from emcache.cache.plan import Job, plan_extraction
from emcache.cache.recipe import LAST, Grid
from emcache.data.dataset import Selection
from emcache.data.greys import GreyRule
from emcache.errors import StoreError, UsageError
from emcache.models.backbones.registry import find_backbone
from emcache.models.heads import takes_images
from emcache.models.layer_names import raw_layer
from emcache.models.weights import Weights
from emcache.progress import Reporter
from emcache.storage.hashing import json_sha256
from emcache.storage.workspace import Workspace
from emcache.training.batches import (
    LabelledFeatures,
    PixelReader,
    Reader,
    SizedSlice,
    TokenReader,
)
from emcache.training.block_outputs import SequenceReader
from emcache.training.protocol import Protocol
from emcache.training.sampling import Source, Sources

_RECIPE_FIELDS = (
    "backbone",
    "weights",
    "weights_sha256",
    "longest_edge",
    "pixel_size_nm",
    "dtype",
    "components",
    "basis_sha256",
    "precision",
    "normalise",
    "shift",
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
    cached_blocks: bool = False
    """Whether the output of blocks that do not change may come from the cache."""


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
    missing: tuple[tuple[Job, ...], ...] = ()
    """The extractions that are to be made first, of all layers of a source at once."""
    after: int = 0
    """Number of the block whose output is read, behind which the backbone runs; 0 for none."""


def plan_cached_tokens(workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
    """Tokens of every source from the cache; what is not there is extracted on opening.

    Raises:
        StoreError: Several feature sets fit, or those of the datasets do not fit together.
        UsageError: Something must be extracted, and no backbone was named.
    """
    if request.features.components is not None and request.protocol.layers != LAST:
        raise UsageError(
            f"principal components are of one layer, and layers is {request.protocol.layers}; "
            f"leave one of the two out.",
            subject="layers",
        )
    planned = [_plan(workspace, source, request, reporter) for source in request.sources.items]
    _check_same_recipe(planned)
    first = planned[0]
    grids = tuple(item.grids for item in planned)
    pixels = None
    if takes_images(request.protocol.head):
        patch, greys = first.description["patch"], request.features.greys
        pixels = _open_pixels(request.sources, grids, patch, greys)
    return Inputs(
        first.description,
        first.recipe,
        tuple(item.fingerprint for item in planned),
        tuple(_label_key(item.source, first.recipe, item.grids) for item in planned),
        grids,
        tuple(known.name for item in planned for known in item.known),
        None,
        lambda reporter: _open_tokens([item.make(reporter) for item in planned], request, pixels),
        tuple(item.missing for item in planned if item.missing),
    )


def plan_pixels(workspace: Workspace, request: InputsRequest, reporter: Reporter) -> Inputs:
    """The slices of every source at their training size; nothing is read from the cache.

    Raises:
        UsageError: No backbone was named.
        EmcacheError: Of the dataset, the backbone, its weights or the device.
    """
    jobs = _plan_backbone(workspace, request, reporter)
    first, grids = jobs[0], tuple(tuple(place.grid for place in job.places) for job in jobs)
    return _of_backbone(
        request,
        jobs,
        lambda _: _open_pixels(request.sources, grids, first.spec.patch, first.greys),
    )


def plan_block_outputs(
    workspace: Workspace, request: InputsRequest, after: int, reporter: Reporter
) -> Inputs:
    """The output of a block for the slices of every source, from the cache.

    It is kept in float32, so that the training is that of :func:`plan_pixels` to within rounding,
    and has the same key.

    Args:
        workspace: Where.
        request: What.
        after: Number of the block, from 1.
        reporter: Receives progress.

    Raises:
        EmcacheError: As :func:`plan_pixels`.
    """
    jobs = _plan_backbone(workspace, request, reporter)
    raw = [job.of_layer(raw_layer(after)) for job in jobs]
    planned = [
        _PlannedFeatures(workspace, source, [find_feature_set(workspace.cache, j.fingerprint) or j])
        for source, j in zip(request.sources.items, raw, strict=True)
    ]
    return replace(
        _of_backbone(
            request,
            jobs,
            lambda reporter: SequenceReader([item.make(reporter) for item in planned]),
        ),
        feature_sets=tuple(job.name for job in raw),
        after=after,
        missing=tuple(item.missing for item in planned if item.missing),
    )


def _of_backbone(
    request: InputsRequest, jobs: Sequence[Job], open_reader: Callable[[Reporter], Reader]
) -> Inputs:
    """What a backbone that runs at every step has in common, whatever it reads."""
    first, recipe = jobs[0], jobs[0].recipe.identity()
    grids = tuple(tuple(place.grid for place in job.places) for job in jobs)
    return Inputs(
        description=first.description(),
        recipe=recipe,
        fingerprints=tuple(job.fingerprint for job in jobs),
        label_keys=tuple(map(_label_key, request.sources.items, [recipe] * len(jobs), grids)),
        grids=grids,
        feature_sets=(),
        weights=first.weights,
        open=open_reader,
    )


def _plan_backbone(workspace: Workspace, request: InputsRequest, reporter: Reporter) -> list[Job]:
    """How each source's slices go through a backbone that is trained."""
    if request.features.backbone is None:
        raise UsageError(
            "a backbone that is trained must be named, as dinov2-small; give its name."
        )
    if request.protocol.tokens != "patch":
        raise UsageError(
            f"a backbone is trained with one pass over each slice, and tokens is "
            f"{request.protocol.tokens}; leave it out.",
            subject="tokens",
        )
    if request.protocol.layers != LAST:
        raise UsageError(
            f"a backbone is trained with its last layer alone, and layers is "
            f"{request.protocol.layers}; leave it out.",
            subject="layers",
        )
    if moves_tokens(request.protocol.align):
        raise UsageError(
            f"tokens move while their backbone is trained, so they cannot be aligned by "
            f"{request.protocol.align}; leave align out, or choose batch-norm.",
            subject="align",
        )
    jobs = []
    for source in request.sources.items:
        name = source.dataset.name
        options = request.features.extract_options(name, request.device)
        jobs.append(plan_extraction(workspace, Selection(name, None), options, reporter))
    return jobs


def _open_pixels(
    sources: Sources, grids: Sequence[Sequence[Grid]], patch: int, greys: GreyRule
) -> PixelReader:
    slices = [
        SizedSlice(item, grid, source.dataset.classes)
        for source, own in zip(sources.items, grids, strict=True)
        for item, grid in zip(source.slices, own, strict=True)
    ]
    return PixelReader(slices, patch, greys)


def _open_tokens(
    features: Sequence[LabelledFeatures], request: InputsRequest, pixels: PixelReader | None
) -> TokenReader:
    """The tokens of every source, each through the transform of its domain."""
    protocol, sources = request.protocol, request.sources.items
    if not moves_tokens(protocol.align):
        return TokenReader(features, pixels=pixels)
    domains = []
    for source, item in zip(sources, features, strict=True):
        chosen = [i for i, s in enumerate(source.slices) if s.split == protocol.align_on]
        domains.append(item.moments(source.dataset.first_name, chosen))
    reference = request.reference or domains[0]
    transforms = [
        fit(protocol.align, domain, reference, protocol.align_shrinkage) for domain in domains
    ]
    return TokenReader(features, transforms, domains, pixels)


def _label_key(source: Source, recipe: Mapping[str, Any], grids: Sequence[Grid]) -> str:
    """Key of a source's labels at training size."""
    return label_key(source.slices, source.dataset.classes, recipe["preprocessing"], grids)


@dataclass(frozen=True, slots=True)
class _PlannedFeatures:
    """The features of one source, layer by layer: there already, or to be extracted."""

    workspace: Workspace
    source: Source
    known: Sequence[Job | FeatureSet]

    @property
    def fingerprint(self) -> str:
        """Of the tokens of all layers."""
        first, *others = (known.fingerprint for known in self.known)
        return json_sha256([first, *others]) if others else first

    @property
    def description(self) -> Mapping[str, Any]:
        """Of the tokens that the head reads."""
        of_layers = [k.description() if isinstance(k, Job) else k.description for k in self.known]
        if len(of_layers) == 1:
            return of_layers[0]
        return {
            **of_layers[0],
            "layer": "+".join(facts["layer"] for facts in of_layers),
            "dim": sum(facts["dim"] for facts in of_layers),
        }

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The same."""
        known = self.known[0]
        recipe: Mapping[str, Any] = (
            known.recipe.identity() if isinstance(known, Job) else known.manifest["recipe"]
        )
        return {**recipe, "layer": self.description["layer"]} if len(self.known) > 1 else recipe

    @property
    def grids(self) -> tuple[Grid, ...]:
        known = self.known[0]
        places = known.places if isinstance(known, Job) else known.slices
        return tuple(place.grid for place in places)

    @property
    def missing(self) -> tuple[Job, ...]:
        """What is to be extracted."""
        return tuple(known for known in self.known if isinstance(known, Job))

    def make(self, reporter: Reporter) -> LabelledFeatures:
        """Extract what is missing in one pass, and open features and labels."""
        dataset = self.source.dataset
        jobs = self.missing
        made: Iterator[Extraction] = iter(())
        if jobs:
            reporter.say(
                f"No features of {dataset.name} for {jobs[0].spec.name} yet: extracting first."
            )
            made = iter(run_extractions(jobs, reporter))
        layers = []
        for known in self.known:
            if isinstance(known, Job):
                layers.append(next(made).feature_set)
            else:
                ensure_recorded(self.workspace, known, reporter)
                layers.append(known)
        labels = ensure_labels(layers[0], self.source.slices, dataset.classes, reporter)
        return LabelledFeatures(layers[0], labels, layers[1:])


def _plan(
    workspace: Workspace, source: Source, request: InputsRequest, reporter: Reporter
) -> _PlannedFeatures:
    name = source.dataset.name
    known: list[Job | FeatureSet] = []
    for layer in _layers(workspace, source, request):
        features = replace(request.features, layer=layer)
        found = choose_feature_set(workspace, source.dataset, features)
        if found is None:
            options = features.extract_options(name, request.device)
            job = plan_extraction(workspace, Selection(name, None), options, reporter)
            known.append(job)
        else:
            known.append(found)
    return _PlannedFeatures(workspace, source, known)


def _layers(workspace: Workspace, source: Source, request: InputsRequest) -> tuple[str, ...]:
    """The layers that the protocol means, of the backbone that is named or the cache's own."""
    layers, backbone = request.protocol.layers, request.features.backbone
    if layers == LAST:
        return (LAST,)
    if backbone is None:
        found = choose_feature_set(workspace, source.dataset, request.features)
        backbone = None if found is None else found.description["backbone"]
    if backbone is None:
        # It says that one must be named.
        request.features.extract_options(source.dataset.name, request.device)
    return find_layers(layers, find_backbone(str(backbone)))


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
            subject=(first.known[0].name, other.known[0].name),
        )
