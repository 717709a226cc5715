"""Sources of a training: datasets whose slices count through, one source after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emcache.data.classes import BACKGROUND, FOREGROUND
from emcache.data.dataset import Dataset, Selection, Slice, load_dataset
from emcache.errors import DatasetError, UsageError
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset with the slices that are used of it."""

    dataset: Dataset
    slices: tuple[Slice, ...]
    first: int
    """Position of its first slice among those of all sources."""

    def positions(self, split: str) -> list[int]:
        """Positions of the slices of one split."""
        return [self.first + i for i, item in enumerate(self.slices) if item.split == split]


@dataclass(frozen=True, slots=True)
class Sources:
    """Every source, in order."""

    items: tuple[Source, ...]

    @classmethod
    def of(cls, chosen: Sequence[tuple[Dataset, tuple[Slice, ...]]]) -> Sources:
        """Number the slices of these datasets through."""
        items: list[Source] = []
        first = 0
        for dataset, slices in chosen:
            items.append(Source(dataset, slices, first))
            first += len(slices)
        return cls(tuple(items))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes by their labels: those of all datasets, which agree."""
        names = {source.dataset.classes.names for source in self.items}
        return names.pop() if len(names) == 1 else (BACKGROUND, FOREGROUND)

    @property
    def ignores(self) -> bool:
        """Whether there are pixels that neither the loss nor a score sees."""
        return any(source.dataset.classes.ignores for source in self.items)

    @property
    def names(self) -> str:
        """The datasets' names, joined by `` + ``."""
        return " + ".join(source.dataset.name for source in self.items)

    def at(self, position: int) -> tuple[Source, Slice]:
        """The slice at a position, and where it comes from."""
        source = [item for item in self.items if item.first <= position][-1]
        return source, source.slices[position - source.first]

    def positions(self, split: str) -> list[int]:
        """Positions of one split, in all sources."""
        return [position for source in self.items for position in source.positions(split)]


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


def training_sources(workspace: Workspace, datasets: Sequence[str], reporter: Reporter) -> Sources:
    """The labelled slices of the datasets to train on; all are checked before any is used.

    Raises:
        UsageError: A split is named, or a dataset twice.
        DatasetError: A dataset without masks, or without a train and a test split.
    """
    found = [load_dataset(workspace, name, reporter) for name in dataset_names(datasets)]
    for dataset in found:
        _check_trainable(dataset)
    for dataset in found[1:]:
        check_classes(found[0].classes.names, f"dataset {found[0].name}", dataset)
    return Sources.of([(dataset, dataset.labelled) for dataset in found])


def check_classes(names: Sequence[str], whose: str, dataset: Dataset) -> None:
    """Refuse masks of other classes; two classes are background and foreground, however called.

    Args:
        names: The classes expected, by their labels.
        whose: What has them, for the error.
        dataset: Whose classes are looked at.

    Raises:
        UsageError: Both lists are named.
    """
    own = dataset.classes.names
    if own != tuple(names) and not len(own) == len(names) == 2:
        raise UsageError(
            f"{whose} has the classes {', '.join(names)}, dataset {dataset.name} {', '.join(own)}; "
            f"expected the same in the same order: set classes in emcache.toml alike.",
            subject=dataset.name,
        )


def _check_trainable(dataset: Dataset) -> None:
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
