"""Where the tokens of shown slices come from: one kind for all, from the cache or made now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from emcache.cache.feature_set import FeatureSet, list_feature_sets
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection, Slice
from emcache.errors import StoreError, UsageError
from emcache.evaluation.trained_run import find_run
from emcache.gap.features import SelectedFeatures
from emcache.gap.sources import features_of, options_of_cache, options_of_run
from emcache.models.weights import describe_untrained, is_untrained
from emcache.progress import Reporter
from emcache.storage.hashing import is_inside
from emcache.storage.workspace import Workspace


@runtime_checkable
class Tokens(Protocol):
    """Tokens of slices, all made the same way."""

    @property
    def words(self) -> str:
        """Backbone, weights and size in a few words, for a title."""

    def grid(self, selection: str, item: Slice) -> Float32[np.ndarray, "row col channel"] | None:
        """Tokens of a slice; None where there are none.

        Raises:
            StoreError: They are damaged, or have gone.
        """


@dataclass(frozen=True, slots=True)
class HeldTokens:
    """What the cache holds of one kind, whatever data sets and weights are there today."""

    words: str
    places: Mapping[str, tuple[FeatureSet, int]]
    """Feature set and position of each slice, by the hash of its pixels."""

    def grid(self, selection: str, item: Slice) -> Float32[np.ndarray, "row col channel"] | None:
        """As :meth:`Tokens.grid`."""
        if item.pixel_sha256 not in self.places:
            return None
        feature_set, position = self.places[item.pixel_sha256]
        return feature_set.tokens(position).astype(np.float32)


def held_tokens(workspace: Workspace, name: str) -> HeldTokens:
    """The tokens of a feature set, and of all others that were made the same way.

    Raises:
        StoreError: There is no such feature set, it is damaged, or of tiles.
    """
    if not is_inside(name) or "/" in name:
        raise StoreError(f"{name!r:.100} is no feature set's name.", subject=name)
    named = FeatureSet.open(workspace.cache / name)
    if named.description.get("tile") is not None:
        raise StoreError(
            f"feature set {name} is of tiles, which are not shown; choose one of whole slices.",
            subject=name,
        )
    alike = [
        one
        for one in list_feature_sets(workspace.cache)
        if one.manifest["recipe_sha256"] == named.manifest["recipe_sha256"]
    ]
    places = {
        item.pixel_sha256: (one, position)
        for one in (*alike, named)
        for position, item in enumerate(one.slices)
    }
    facts = named.description
    return HeldTokens(_in_words(facts, facts.get("adapter_run")), places)


def _in_words(facts: Mapping[str, Any], run: str | None) -> str:
    size = (
        f"{facts['longest_edge']} px"
        if facts.get("pixel_size_nm") is None
        else f"{facts['pixel_size_nm']:g} nm a pixel"
    )
    adapted = ""
    if facts.get("adapter_sha256") is not None:
        # Without the date and the time, which no other run shares the rest with.
        adapted = f", adapted by {str(run).split('-', 3)[-1]}"
    untrained = ", untrained" if is_untrained(facts["weights"]) else ""
    return f"{facts['backbone']} ({facts['weights']}{untrained}), {size}{adapted}"


@dataclass(frozen=True, slots=True)
class TokenSource:
    """The tokens of some selections of slices, all made the same way."""

    features: Mapping[str, SelectedFeatures]
    """By selection, as ``vnc`` or ``vnc:test``."""
    run: str | None
    """The trained run whose backbone made them; None for a frozen one as it is."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Backbone, weights, size and others, as a feature set has them."""
        return next(iter(self.features.values())).job.description()

    @property
    def words(self) -> str:
        """In a few words, for a title."""
        return _in_words(self.facts, self.run)

    def grid(self, selection: str, item: Slice) -> Float32[np.ndarray, "row col channel"]:
        """Tokens of a slice.

        Raises:
            StoreError: They are damaged, or have gone.
        """
        features = self.features[selection]
        position = [one.id for one in features.job.slices].index(item.id)
        return features.grid(position)


def tokens_of_run(
    workspace: Workspace,
    selections: Sequence[Selection],
    run: str,
    device: str,
    reporter: Reporter,
    weights: str | None = None,
) -> TokenSource:
    """The tokens that a trained run's head sees, made now where the cache has none.

    Raises:
        RecordError: There is no such run, it is damaged, or its weights have gone.
        UsageError: It has no backbone.
    """
    trained = find_run(workspace, run)
    options = options_of_run(trained, weights, device)
    return _source(workspace, selections, options, trained.id, reporter)


def tokens_of_cache(
    workspace: Workspace,
    selections: Sequence[Selection],
    request: FeatureRequest,
    device: str,
    reporter: Reporter,
) -> TokenSource | None:
    """The tokens that the cache holds of these slices, or those that were asked for.

    Returns:
        None where there are none and no backbone was named.

    Raises:
        StoreError: The cache holds several kinds, and the request fits more than one.
    """
    try:
        options = options_of_cache(workspace, selections, request, device, reporter)
    except UsageError:
        if request != FeatureRequest():
            raise
        return None
    return _source(workspace, selections, options, None, reporter)


def _source(
    workspace: Workspace,
    selections: Sequence[Selection],
    options: ExtractOptions,
    run: str | None,
    reporter: Reporter,
) -> TokenSource:
    jobs = {str(one): plan_extraction(workspace, one, options, reporter) for one in selections}
    weights = next(iter(jobs.values())).description()["weights"]
    if is_untrained(weights):
        reporter.say(describe_untrained(weights))
    return TokenSource({name: features_of(job, reporter) for name, job in jobs.items()}, run)
