from collections import Counter

import pytest
import torch

from emcache.errors import DatasetError, UsageError
from emcache.training.protocol import Protocol
from emcache.training.sampling import (
    Sampling,
    check_sampling,
    chunks,
    epoch_order,
    split_validation,
)

LARGE, SMALL = list(range(100, 111)), [1, 2, 3]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_validation_is_the_references_choice() -> None:
    order = torch.randperm(17, generator=generator(42)).tolist()
    train, val = split_validation([[10 * i for i in range(17)]], Protocol())
    assert train == [[10 * i for i in order[:15]]]
    assert val == [10 * i for i in order[15:]]
    assert len(split_validation([[1, 2]], Protocol())[1]) == 1
    with pytest.raises(DatasetError, match="found 1 training slices"):
        split_validation([[1]], Protocol())


def test_validation_of_two_sources_is_drawn_from_both_together() -> None:
    order = torch.randperm(14, generator=generator(42)).tolist()
    every = [*LARGE, *SMALL]
    train, val = split_validation([LARGE, SMALL], Protocol(val_fraction=0.3))
    assert val == [every[i] for i in order[10:]]
    assert train[0] == [every[i] for i in order[:10] if every[i] >= 100]
    assert train[1] == [every[i] for i in order[:10] if every[i] < 100]


def test_a_validation_block_is_a_run_of_neighbours_in_each_source() -> None:
    protocol = Protocol(val_split="block", val_fraction=0.3)
    assert protocol.label == "paper[val_fraction=0.3, val_split=block]"
    train, val = split_validation([LARGE, SMALL], protocol)
    large, small = [p for p in val if p >= 100], [p for p in val if p < 100]
    assert large == list(range(large[0], large[0] + 3))
    assert len(small) == 1
    assert sorted([*train[0], *large]) == LARGE
    assert sorted([*train[1], *small]) == SMALL
    starts = {
        split_validation([LARGE], Protocol(val_split="block", val_seed=seed))[1][0]
        for seed in range(30)
    }
    assert len(starts) > 5
    with pytest.raises(DatasetError, match="takes every training slice of one dataset"):
        split_validation([LARGE, [1]], protocol)


def test_a_natural_epoch_shows_every_slice_once() -> None:
    steps = epoch_order([LARGE, SMALL], Sampling.NATURAL, 2, generator())
    assert sorted(p for step in steps for p in step) == sorted([*LARGE, *SMALL])
    assert {len(step) for step in steps} == {2}
    assert steps != epoch_order([LARGE, SMALL], Sampling.NATURAL, 2, generator(1))


def test_a_natural_epoch_of_one_source_is_the_plain_shuffle() -> None:
    order = torch.randperm(11, generator=generator(5)).tolist()
    expected = chunks([LARGE[i] for i in order], 2)
    assert epoch_order([LARGE], Sampling.NATURAL, 2, generator(5)) == expected
    assert [len(step) for step in expected] == [2, 2, 2, 2, 2, 1]


def test_a_balanced_epoch_draws_one_of_each_in_every_step() -> None:
    steps = epoch_order([LARGE, SMALL], Sampling.BALANCED, 2, generator())
    assert len(steps) == 11
    assert all(step[0] in LARGE and step[1] in SMALL and len(step) == 2 for step in steps)
    drawn = Counter(p for step in steps for p in step)
    assert all(drawn[p] == 1 for p in LARGE)
    assert all(3 <= drawn[p] <= 4 for p in SMALL)


def test_larger_balanced_steps_are_shared_equally() -> None:
    steps = epoch_order([LARGE, SMALL], Sampling.BALANCED, 4, generator())
    assert len(steps) == 6
    assert all(sum(p in SMALL for p in step) == 2 == len(step) - 2 for step in steps)
    with pytest.raises(UsageError, match="--batch 3 cannot be shared equally by 2 datasets"):
        check_sampling(Sampling.BALANCED, 2, 3)
