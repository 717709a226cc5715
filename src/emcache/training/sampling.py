"""Sources of a training, and which of their slices make a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch

from emcache.data.classes import BACKGROUND, FOREGROUND
from emcache.data.dataset import Dataset, Selection, Slice, load_dataset
from emcache.data.tiles import cut_dataset
from emcache.data.tiling import Tiling
from emcache.errors import DatasetError, UsageError
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace
from emcache.training.protocol import Protocol


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


def training_sources(
    workspace: Workspace,
    datasets: Sequence[str],
    reporter: Reporter,
    tiling: Tiling | None = None,
) -> Sources:
    """The labelled slices of the datasets to train on; all are checked before any is used.

    Args:
        workspace: Where.
        datasets: Their names.
        reporter: Receives progress.
        tiling: How slices are cut into tiles; None for whole ones.

    Raises:
        UsageError: A split is named, or a dataset twice.
        DatasetError: A dataset without masks, or without a train and a test split.
    """
    found = [load_dataset(workspace, name, reporter) for name in dataset_names(datasets)]
    for dataset in found:
        _check_trainable(dataset)
    for dataset in found[1:]:
        check_classes(found[0].classes.names, f"dataset {found[0].name}", dataset)
    cut = [cut_dataset(workspace, dataset, tiling, reporter) for dataset in found]
    return Sources.of([(dataset, dataset.labelled) for dataset in cut])


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


class Sampling(StrEnum):
    """How steps draw from several sources."""

    NATURAL = "natural"
    """All slices in one shuffled list: a source is drawn as often as it has slices."""
    BALANCED = "balanced"
    """As many slices of each source in every step; the smaller sources are repeated."""


def check_sampling(sampling: Sampling, sources: int, batch: int) -> None:
    """Refuse a batch that cannot be shared equally.

    Raises:
        UsageError: Balanced steps of this size cannot be made.
    """
    if sampling is Sampling.BALANCED and batch % sources:
        raise UsageError(
            f"--batch {batch} cannot be shared equally by {sources} datasets; choose a multiple of "
            f"{sources}.",
            subject=batch,
        )


class Split(NamedTuple):
    """Positions of the slices that a run learns from."""

    train: list[list[int]]
    """Of each source: those that steps are made of."""
    val: list[int]
    """Of all sources: those that choose the best epoch."""

    @property
    def steps(self) -> list[int]:
        """All training positions, source after source, each in order."""
        return [position for positions in self.train for position in sorted(positions)]


def split_of(sources: Sources, protocol: Protocol, seed: int, *, validates: bool = True) -> Split:
    """What a run of a seed learns from: all training slices, or as many as the protocol says.

    Subsets of one seed are nested: each holds the smaller ones. A run on a single slice of each
    dataset validates on these.

    Args:
        sources: Whose slices.
        protocol: Says how many, and how validation slices are chosen.
        seed: Of the subset.
        validates: Whether some are kept for validation.

    Raises:
        UsageError: A dataset has fewer training slices than the protocol asks for.
        DatasetError: As :func:`split_validation`.
    """
    units = [_subset(source, protocol, seed) for source in sources.items]
    if not validates:
        return Split([_positions(some) for some in units], [])
    if protocol.train_slices == 1:
        train = [_positions(some) for some in units]
        return Split(train, [position for positions in train for position in positions])
    # Of a single section some tiles must validate, though they overlap others.
    units = [[[p] for p in some[0]] if len(some) == 1 else some for some in units]
    first = [[unit[0] for unit in some] for some in units]
    train, val = split_validation(first, protocol)
    whole = {unit[0]: unit for some in units for unit in some}
    return Split(
        [_positions([whole[position] for position in own]) for own in train],
        _positions([whole[position] for position in val]),
    )


_Unit = list[int]
"""Positions that stay together: a slice, or all tiles of one."""


def _positions(units: Sequence[_Unit]) -> list[int]:
    return [position for unit in units for position in unit]


def _subset(source: Source, protocol: Protocol, seed: int) -> list[_Unit]:
    by_slice: dict[str, _Unit] = {}
    for position in source.positions("train"):
        by_slice.setdefault(source.slices[position - source.first].whole.id, []).append(position)
    positions, count = list(by_slice.values()), protocol.train_slices
    if count is None:
        return positions
    if count > len(positions):
        raise UsageError(
            f"{source.dataset.name} has {len(positions)} training slices, and {count} were to be "
            f"used; expected no more: choose fewer --train-slices, or all.",
            subject=count,
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(positions), generator=generator).tolist()
    if protocol.train_subset == "block":
        # A run of neighbours that grows to both sides of a slice, which the seed draws.
        first = order[0]
        order = sorted(range(len(positions)), key=lambda place: (abs(place - first), place))
    return [positions[place] for place in sorted(order[:count])]


def split_validation(
    sources: Sequence[Sequence[int]], protocol: Protocol
) -> tuple[list[list[int]], list[int]]:
    """Training positions of each source, and the validation positions of all.

    By ``val_split`` of the protocol, validation is

    * ``random``: the last ``round(fraction * n)`` of a seeded permutation of all training slices,
      sources one after the other, as in the study's reference;
    * ``block``: of each source, ``round(fraction * n)`` neighbours (at least one) in natural order,
      from a seeded place on.

    Raises:
        DatasetError: Fewer than two positions, or a source that would be left without any.
    """
    count = sum(len(source) for source in sources)
    if count < 2:
        raise DatasetError(
            f"found {count} training slices; expected at least two, one to train and one to "
            f"validate: label more slices."
        )
    generator = torch.Generator().manual_seed(protocol.val_seed)
    if protocol.val_split == "block":
        train, val = _blocks(sources, protocol, generator)
    else:
        train, val = _drawn(sources, protocol, generator)
    if not all(train):
        raise DatasetError(
            "validation takes every training slice of one dataset; expected at least one to train "
            "on: label more slices."
        )
    return train, val


def _drawn(
    sources: Sequence[Sequence[int]], protocol: Protocol, generator: torch.Generator
) -> tuple[list[list[int]], list[int]]:
    positions = [position for source in sources for position in source]
    count = len(positions)
    n_val = max(1, round(count * protocol.val_fraction))
    chosen = [positions[i] for i in torch.randperm(count, generator=generator).tolist()]
    owner = {position: place for place, source in enumerate(sources) for position in source}
    train: list[list[int]] = [[] for _ in sources]
    for position in chosen[: count - n_val]:
        train[owner[position]].append(position)
    return train, chosen[count - n_val :]


def _blocks(
    sources: Sequence[Sequence[int]], protocol: Protocol, generator: torch.Generator
) -> tuple[list[list[int]], list[int]]:
    train: list[list[int]] = []
    val: list[int] = []
    for source in sources:
        n_val = max(1, round(len(source) * protocol.val_fraction))
        start = int(torch.randint(len(source) - n_val + 1, (1,), generator=generator))
        val += source[start : start + n_val]
        train.append([*source[:start], *source[start + n_val :]])
    return train, val


def chunks(positions: Sequence[int], batch: int) -> list[list[int]]:
    """Steps of ``batch`` positions, in order; the last may be smaller."""
    return [list(positions[start : start + batch]) for start in range(0, len(positions), batch)]


def epoch_order(
    sources: Sequence[Sequence[int]],
    sampling: Sampling,
    batch: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """The steps of one epoch.

    A natural epoch shows every slice once. A balanced one shows every slice of the largest source
    once, and of the others as many, in fresh permutations one after the other.
    """
    if sampling is Sampling.NATURAL:
        positions = [position for source in sources for position in source]
        return chunks(_shuffled(positions, generator), batch)
    share = batch // len(sources)
    steps = -(-max(len(source) for source in sources) // share)
    drawn = [_repeated(source, steps * share, generator) for source in sources]
    return [
        [position for row in drawn for position in row[step * share : (step + 1) * share]]
        for step in range(steps)
    ]


def epoch_steps(sources: Sequence[Sequence[int]], sampling: Sampling, batch: int) -> int:
    """How many steps :func:`epoch_order` makes."""
    return len(epoch_order(sources, sampling, batch, torch.Generator()))


def _shuffled(positions: Sequence[int], generator: torch.Generator) -> list[int]:
    order = torch.randperm(len(positions), generator=generator).tolist()
    return [positions[place] for place in order]


def _repeated(source: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += _shuffled(source, generator)
    return drawn[:count]
