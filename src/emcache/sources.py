"""Sources of a training: datasets with features and labels, made now where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emcache.datasets import Dataset, Selection, Slice, load_dataset
from emcache.errors import DatasetError, StoreError, UsageError
from emcache.examples import LabelledFeatures
from emcache.extract import run_extraction
from emcache.feature_choice import FeatureRequest, choose_feature_set
from emcache.jobs import plan_extraction
from emcache.labels import ensure_labels
from emcache.progress import Reporter
from emcache.workspace import Workspace

_RECIPE_FIELDS = ("backbone", "weights", "weights_sha256", "longest_edge", "dtype", "precision")


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset of a training, with its features; positions count through all sources."""

    dataset: Dataset
    slices: tuple[Slice, ...]
    features: LabelledFeatures
    first: int
    """Position of its first slice."""

    def positions(self, split: str) -> list[int]:
        """Positions of the slices of one split."""
        return [self.first + i for i, item in enumerate(self.slices) if item.split == split]


def dataset_names(datasets: Sequence[str]) -> list[str]:
    """The datasets that a training was given, checked.

    Raises:
        UsageError: A split is named, or a dataset twice.
    """
    selections = [Selection.parse(text) for text in datasets]
    for selection in selections:
        if selection.split is not None:
            raise UsageError(
                f"{selection} names a split; training takes a whole dataset, whose own split says "
                f"what trains and what tests: use {selection.dataset}.",
                subject=str(selection),
            )
    names = [selection.dataset for selection in selections]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(
            f"dataset {twice[0]} is named twice; name each once.", subject=tuple(datasets)
        )
    return names


def resolve_sources(
    workspace: Workspace,
    names: Sequence[str],
    request: FeatureRequest,
    device: str,
    reporter: Reporter,
) -> tuple[Source, ...]:
    """Datasets with the features and labels to train on.

    Args:
        workspace: Where.
        names: The datasets, in order.
        request: Which features; what is missing is extracted.
        device: Where to extract.
        reporter: Hears of everything that takes long.

    Raises:
        DatasetError: A dataset without masks, or without a train and a test split.
        StoreError: Several feature sets fit, or those of the datasets do not fit together.
        UsageError: Something must be extracted, and no backbone was named.
    """
    # Every dataset is checked before anything is extracted for one of them.
    datasets = [_trainable(load_dataset(workspace, name, reporter)) for name in names]
    sources: list[Source] = []
    for dataset in datasets:
        features = _features(workspace, dataset, request, device, reporter)
        first = sources[-1].first + len(sources[-1].slices) if sources else 0
        sources.append(Source(dataset, dataset.labelled, features, first))
    _check_same_recipe(sources)
    return tuple(sources)


def _trainable(dataset: Dataset) -> Dataset:
    if not dataset.labelled:
        raise DatasetError(
            f"dataset {dataset.name} has no masks; training needs them: add it again with --masks.",
            subject=dataset.name,
        )
    for split in ("train", "test"):
        if not any(item.split == split for item in dataset.labelled):
            raise DatasetError(
                f"dataset {dataset.name} has no labelled slice in split {split}; training needs "
                f"train and test: set its split in emcache.toml.",
                subject=dataset.name,
            )
    return dataset


def _features(
    workspace: Workspace,
    dataset: Dataset,
    request: FeatureRequest,
    device: str,
    reporter: Reporter,
) -> LabelledFeatures:
    """Tokens and labels of a dataset, made now where they are not there."""
    name = dataset.name
    feature_set = choose_feature_set(workspace, dataset, request)
    if feature_set is None:
        extract_options = request.extract_options(name, device)
        reporter.say(f"No features of {name} for {extract_options.backbone} yet: extracting first.")
        job = plan_extraction(workspace, Selection(name, None), extract_options, reporter)
        feature_set = run_extraction(job, reporter).feature_set
    labels = ensure_labels(feature_set, dataset.labelled, dataset.mask_threshold, reporter)
    return LabelledFeatures(feature_set, labels)


def _check_same_recipe(sources: Sequence[Source]) -> None:
    """One head reads tokens of one kind."""
    first = sources[0].features.feature_set
    for source in sources[1:]:
        other = source.features.feature_set
        if other.manifest["recipe_sha256"] == first.manifest["recipe_sha256"]:
            continue
        differing = "; ".join(
            f"{name} {first.description[name]} and {other.description[name]}"
            for name in _RECIPE_FIELDS
            if first.description[name] != other.description[name]
        )
        raise StoreError(
            f"the features of {sources[0].dataset.name} and {source.dataset.name} differ "
            f"({differing}); expected one backbone and size: name them with --backbone, --weights "
            f"and --longest-edge.",
            subject=(first.name, other.name),
        )
