"""How long work reports on itself, without knowing who listens.

The library calls a :class:`Reporter`; the command line shows bars or plain lines, tests and
notebooks may pass :class:`Quiet`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """One counted piece of work; a context manager that ends with the work."""

    def __enter__(self) -> Task:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, however it ended."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count ``steps`` as done; ``note`` says the latest facts (a loss, a rate)."""


@runtime_checkable
class Reporter(Protocol):
    """Where messages and progress go."""

    def say(self, message: str) -> None:
        """A message of one line for the user."""

    def task(self, title: str, total: int, unit: str) -> Task:
        """A counted piece of work of ``total`` units."""


class _QuietTask:
    def __enter__(self) -> _QuietTask:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def advance(self, steps: int = 1, note: str = "") -> None:
        return None


class Quiet:
    """A reporter that says nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""

    def task(self, title: str, total: int, unit: str) -> Task:
        """A task that shows nothing."""
        return _QuietTask()
