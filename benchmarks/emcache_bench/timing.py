"""Timing works against each other: in turns, so that what slows the machine slows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

Work = Callable[[], object]
Times = dict[str, list[float]]
"""Seconds of each round, by what was timed."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How many rounds to take."""

    least: int
    most: int
    """Those beyond the least are taken while a verdict is open."""

    def numbers(self, settled: Callable[[], bool], warm_up: int = 1) -> Iterator[int]:
        """The number of each round, from 0; those before, which do not count, are negative.

        Args:
            settled: Whether enough is known; asked once there is the least number of rounds.
            warm_up: Rounds before.
        """
        for number in range(-warm_up, self.most):
            if number >= self.least and settled():
                return
            yield number


def seconds_of(work: Work, device: torch.device) -> float:
    """Wall-clock seconds, what the device has queued included."""
    _synchronise(device)
    started = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - started


def interleave(
    works: Mapping[str, Work],
    rounds: Rounds,
    device: torch.device,
    settled: Callable[[Times], bool] = lambda _: True,
    warm_up: int = 1,
) -> Times:
    """Time each work once a round; every second round in reverse order.

    Args:
        works: By name.
        rounds: That count.
        device: Where they run.
        settled: Whether the times so far are enough.
        warm_up: Rounds before, that do not.

    Returns:
        Seconds of each round, by the works' names.
    """
    times: Times = {name: [] for name in works}
    for number in rounds.numbers(lambda: settled(times), warm_up):
        for name in in_turn(works, number):
            seconds = seconds_of(works[name], device)
            if number >= 0:
                times[name].append(seconds)
    return times


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """The order of a round: every second one is reversed."""
    order = list(names)
    return order if number % 2 == 0 else order[::-1]


def quotients(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Round by round, how often the second goes into the first."""
    return [a / b for a, b in zip(first, second, strict=True)]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
