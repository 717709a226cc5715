"""With how many threads PyTorch computes on a processor.

PyTorch takes one for each core. In a container that may use fewer of them than it sees that is far
too many, and where two threads of a core help each other it is too few. So it is measured
(:mod:`emcache.models.timings`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, partial

import torch

from emcache.models.arithmetic import products
from emcache.models.timings import Choice, Timed

_CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_usual = torch.get_num_threads()
_CPU = torch.device("cpu")


def use_fastest_threads() -> None:
    """Let PyTorch have as many threads as it is fastest with.

    Nothing changes where somebody has chosen: by a variable of the environment, as workers' threads
    are, or by ``torch.set_num_threads`` since this module was imported.
    """
    timed = time_threads()
    if timed is not None and torch.get_num_threads() == _usual:
        torch.set_num_threads(int(timed.fastest))


def time_threads(*, again: bool = False) -> Timed | None:
    """Seconds of the same work with each number; None where somebody has chosen, or one is left."""
    if any(os.environ.get(name) for name in _CHOSEN_BY) or len(_numbers()) == 1:
        return None
    present = torch.get_num_threads()
    # What is kept is found by the usual number.
    torch.set_num_threads(_usual)
    try:
        return _THREADS.time(_CPU, again=again)
    finally:
        torch.set_num_threads(present)


@lru_cache
def _numbers() -> list[int]:
    """Those that may be the best: PyTorch's own, half of it, and of cores that may be used."""
    from joblib import cpu_count  # it knows of containers and of sets of cores

    return sorted({_usual, max(1, _usual // 2), cpu_count()})


def _works(device: torch.device) -> dict[str, Callable[[], object]]:
    work = products(device)

    def run(number: int) -> None:
        torch.set_num_threads(number)
        with torch.inference_mode():
            work()

    return {str(number): partial(run, number) for number in _numbers()}


_THREADS = Choice("threads", str(_usual), _works)
