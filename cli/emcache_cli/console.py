"""What the user sees: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from emcache.progress import Task
from emcache_cli.options import Format

if TYPE_CHECKING:
    import polars as pl
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 10.0


class Console:
    """Messages and progress on standard error: bars on a terminal, plain lines elsewhere."""

    def say(self, message: str) -> None:
        """Show a message of one line."""
        _tell(message)

    def task(self, title: str, total: int, unit: str) -> Task:
        """Show a counted piece of work."""
        if sys.stderr.isatty():
            return _Bar(title, total, unit)
        return _Lines(title, total, unit)


class _Lines:
    """Progress as plain lines, at most one in ten seconds and one at the end."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = 0
        self._note = ""
        self._started = self._shown = time.monotonic()
        self._shown_at = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown_at != self._done:
            self._show()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        self._note = note or self._note
        if time.monotonic() - self._shown >= _SECONDS_BETWEEN_LINES:
            self._show()

    def _show(self) -> None:
        self._shown, self._shown_at = time.monotonic(), self._done
        elapsed = self._shown - self._started
        parts = [f"{self._title}: {self._done}/{self._total} {self._unit}"]
        if self._done and elapsed:
            rate = self._done / elapsed
            parts.append(f"{rate:.1f} {self._unit}/s")
            if self._done < self._total:
                parts.append(f"at most {(self._total - self._done) / rate:.0f} s left")
        _tell(", ".join([*parts, *([self._note] if self._note else [])]))


class _Bar:
    """Progress as a bar with rate and time left."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._progress: Progress | None = None
        self._id: TaskID | None = None
        self._started = time.monotonic()
        self._done = 0
        self._note = ""

    def __enter__(self) -> Self:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=RichConsole(stderr=True),
            transient=True,
        )
        self._progress.start()
        self._id = self._progress.add_task(self._title, total=self._total, facts="")
        self._started = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self._progress is None or self._id is None:
            return
        self._done += steps
        self._note = note or self._note
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        self._progress.update(
            self._id, advance=steps, facts=f"{rate:.1f} {self._unit}/s {self._note}"
        )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the one place that talks to people


def show(frame: pl.DataFrame, chosen: Format | None, out: Path | None = None) -> None:
    """Write a result to standard output, or to a file whose ending may choose the format."""
    from emcache.errors import UsageError
    from emcache.storage import atomic
    from emcache_warehouse.formats import format_for_path, render, render_for_terminal

    if out is not None:
        data = render(frame, chosen.value if chosen else format_for_path(out))
        try:
            atomic.write_bytes(out, data if isinstance(data, bytes) else data.encode())
        except OSError as error:
            raise UsageError(
                f"{out} cannot be written ({error.strerror}); choose another --out."
            ) from error
        return
    if chosen is None and sys.stdout.isatty():
        sys.stdout.write(render_for_terminal(frame, shutil.get_terminal_size().columns))
        return
    style = chosen or Format.JSON
    data = render(frame, style.value)
    if isinstance(data, bytes):
        if sys.stdout.isatty():
            raise UsageError(f"{style.value} is not for a terminal; give --out FILE, or pipe it.")
        sys.stdout.buffer.write(data)
        return
    sys.stdout.write(data if data.endswith("\n") else data + "\n")


def show_rows(rows: list[dict[str, Any]], chosen: Format | None) -> None:
    """Write rows to standard output."""
    import polars as pl

    show(pl.DataFrame(rows, infer_schema_length=None), chosen)


def show_object(value: dict[str, Any], rows: list[dict[str, Any]], chosen: Format | None) -> None:
    """Write a JSON object whole, or in any other format its rows."""
    if chosen is Format.JSON or (chosen is None and not sys.stdout.isatty()):
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        return
    show_rows(rows, chosen)
