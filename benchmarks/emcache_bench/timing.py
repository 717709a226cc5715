"""Timing works against each other: in turns, so that what slows the machine slows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

Work = Callable[[], object]


def seconds_of(work: Work, device: torch.device) -> float:
    """Wall-clock seconds, what the device has queued included."""
    _synchronise(device)
    started = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - started


def interleave(
    works: Mapping[str, Work], rounds: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time each work once a round; every second round in reverse order.

    Args:
        works: By name.
        rounds: That count.
        device: Where they run.
        warm_up: Rounds before, that do not.

    Returns:
        Seconds of each round, by the works' names.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-warm_up, rounds):
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
