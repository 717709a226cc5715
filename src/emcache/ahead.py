"""Work that runs ahead in threads, its results taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")


def run_ahead(
    pool: ThreadPoolExecutor, works: Iterable[Callable[[], _Result]], depth: int
) -> Iterator[_Result]:
    """Results in order, with at most ``depth`` of them waiting."""
    waiting: deque[Future[_Result]] = deque()
    for work in works:
        waiting.append(pool.submit(work))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
