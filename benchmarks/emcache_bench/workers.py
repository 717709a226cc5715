"""Processes that do one piece of work whenever they are asked, so that two ways can take turns.

A process of its own, where a way of working includes how the process treats memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Worker:
    """A module run as a process: a line of JSON out for every empty line in.

    The module calls :func:`answer_requests`.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        self._module = module
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self) -> dict[str, Any]:
        """Do the work once; what the worker says of it.

        Raises:
            RuntimeError: The worker died; what it wrote on standard error says why.
        """
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        assert self._process.stdout is not None  # noqa: S101 - idem
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def answer_requests(work: Callable[[], dict[str, Any]]) -> None:
    """Within a worker: do the work for every line of input, until there are no more."""
    for _ in sys.stdin:
        sys.stdout.write(json.dumps(work()) + "\n")
        sys.stdout.flush()
