"""Locks between processes, with a note of who holds each.

The operating system lets go of a lock when its process ends, however it ends, so no lock outlives a
killed command and nobody need ever remove one. The note beside it does outlive it: that is how the
next command can say that an earlier one was killed. Nothing rests on a lock but the sparing of work
done twice: what is written appears by renaming, and of two that write the same, one wins.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from emcache.progress import Reporter
from emcache.storage import atomic
from emcache.validation import Content

_NOTE = ".holder"
# Start times of a process, read twice, agree to about a clock tick.
_SAME_START = 1.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, or held it when it was killed."""

    path: Path
    """The lock."""
    what: str
    """What it does: ``extracting vnc-dinov2-small-...``."""
    pid: int
    host: str
    since: str
    """ISO 8601, UTC."""
    alive: bool | None
    """Whether the process still runs; None where it is on another host."""

    @property
    def words(self) -> str:
        """``process 12 on host since ...``."""
        return f"process {self.pid} on {self.host}, since {self.since[:19]} UTC,"


class _Note(Content):
    what: str
    pid: int
    host: str
    since: str
    started: float


@contextmanager
def held(path: Path, what: str, reporter: Reporter) -> Iterator[bool]:
    """Hold a lock; wait while another process holds it, and say so.

    Args:
        path: The lock's file; made where it is not there.
        what: What is done under it, as ``extracting vnc``.
        reporter: Receives messages: who is waited for, and whose work is taken over.

    Yields:
        Whether somebody was waited for.
    """
    lock = FileLock(path)
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = _holder(path)
        who = holder.words if holder else "another process"
        reporter.say(f"{who[0].upper()}{who[1:]} is {what}: waiting for it.")
        lock.acquire()
        waited = True
    with _noted(lock, path, what, reporter):
        yield waited


@contextmanager
def held_if_free(path: Path, what: str, reporter: Reporter) -> Iterator[bool]:
    """Hold a lock if no other process does; yields whether it is held."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    with _noted(lock, path, what, reporter):
        yield True


def lock_holders(folder: Path) -> list[Holder]:
    """Who holds the locks in a folder, those included that were killed."""
    notes = sorted(folder.glob(f".*{_NOTE}")) if folder.is_dir() else []
    found = (_holder(note.with_name(note.name.removesuffix(_NOTE))) for note in notes)
    return [holder for holder in found if holder is not None]


@contextmanager
def _noted(lock: FileLock, path: Path, what: str, reporter: Reporter) -> Iterator[None]:
    note = path.with_name(path.name + _NOTE)
    try:
        before = _holder(path)
        if before is not None:
            reporter.say(
                f"Process {before.pid} was {before.what} and ended before it was done: going on "
                f"from what it kept."
            )
        own = _Note(
            what=what,
            pid=os.getpid(),
            host=socket.gethostname(),
            since=datetime.now(UTC).isoformat(),
            started=psutil.Process().create_time(),
        )
        # A note that cannot be written costs a sentence, no more.
        with suppress(OSError):
            atomic.write_json(note, own.model_dump())
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> Holder | None:
    """What the note beside a lock says; None where there is none that can be read."""
    try:
        note = _Note.model_validate_json(path.with_name(path.name + _NOTE).read_bytes())
    except (OSError, ValueError):
        return None
    alive = _is_alive(note.pid, note.started) if note.host == socket.gethostname() else None
    return Holder(path, note.what, note.pid, note.host, note.since, alive)


def _is_alive(pid: int, started: float) -> bool:
    """Whether that very process runs; its number may have gone to another."""
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < _SAME_START)
    except (psutil.Error, ValueError, OverflowError):
        return False
