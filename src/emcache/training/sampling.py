"""Which slices make a step, from one source or several."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch

from emcache.errors import DatasetError, UsageError
from emcache.training.protocol import Protocol


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
