"""What is known about files' contents, so that an unchanged file is not read again.

An entry is trusted while the file's size and times are those seen when it was read. A change within
the clock's own grain of the reading could go unseen, so such an entry is not kept (the same care
that git takes with its index).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from emcache.storage import atomic
from emcache.storage.workspace import Workspace

_FORMAT = 2
_FINE_GRAIN_NS = 20_000_000
# Some file systems keep whole seconds, or even two: seen by times without a fraction.
_COARSE_GRAIN_NS = 2_000_000_000


class FileIndex:
    """A cache from (file, question) to the JSON value that reading the file answered.

    The index is only a shortcut: a lost or damaged one costs time, never correctness.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        self._changed = False
        try:
            stored = json.loads(path.read_bytes())
            # Answers are used as they stand, so none of a damaged file is.
            if stored["format"] == _FORMAT and stored["sha256"] == _sha256(stored["entries"]):
                self._entries = dict(stored["entries"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self._entries = {}

    def lookup(self, file: Path, question: str) -> Any | None:
        """The remembered answer, or None where the file is new or has changed."""
        entry = self._entries.get(f"{question}:{file}")
        if not isinstance(entry, dict) or entry.get("stamp") != file_stamp(file):
            return None
        return entry.get("answer")

    def answer(self, file: Path, question: str, read: Callable[[Path], Any]) -> Any:
        """The remembered answer, else ``read(file)``, remembered from now on."""
        known = self.lookup(file, question)
        if known is not None:
            return known
        before = file_stamp(file)
        answer = read(file)
        if before is not None and before == file_stamp(file) and is_settled(before):
            self._entries[f"{question}:{file}"] = {"stamp": before, "answer": answer}
            self._changed = True
        return answer

    def memo(self, question: str, compute: Callable[[], Any]) -> Any:
        """The remembered answer to a question about no file; the question must name every input."""
        entry = self._entries.get(question)
        if entry is None:
            entry = self._entries[question] = {"answer": compute()}
            self._changed = True
        return entry["answer"]

    def recall(self, key: str) -> Any | None:
        """What :meth:`remember` was told last, or None."""
        entry = self._entries.get(key)
        return entry.get("answer") if isinstance(entry, dict) else None

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value that it costs a question to the user to lose, and nothing else."""
        if self.recall(key) != value:
            self._entries[key] = {"answer": value}
            self._changed = True

    def save(self) -> None:
        """Write the index where it changed; of two writers the last wins."""
        if not self._changed:
            return
        # A place that cannot be written costs time at the next command, and nothing else.
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            sha256 = _sha256(self._entries)
            atomic.write_json(
                self._path, {"format": _FORMAT, "sha256": sha256, "entries": self._entries}
            )
            self._changed = False


def _sha256(entries: Any) -> str:
    # In ASCII: a file's name need not be text in any encoding.
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode("ascii")).hexdigest()


def file_stamp(file: Path) -> list[int] | None:
    """Size, times and inode of a file, or of all files of a folder; None where there is none."""
    try:
        facts = os.stat(file)  # noqa: PTH116 - a string path costs half of what a Path costs
    except OSError:
        return None
    own = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
    return _folder_stamp(file, own) if stat.S_ISDIR(facts.st_mode) else own


def _folder_stamp(folder: Path, own: list[int]) -> list[int] | None:
    """Of all the files of a folder that is one volume: the newest times, and a hash of the rest."""
    digest = hashlib.sha256()
    size, modified, changed, inode = 0, *own[1:]
    try:
        for parent, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                facts = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118 - as above
                digest.update(f"{parent}/{name}:{facts.st_size}:{facts.st_mtime_ns}:".encode())
                digest.update(f"{facts.st_ctime_ns}:{facts.st_ino};".encode())
                size += facts.st_size
                modified = max(modified, facts.st_mtime_ns)
                changed = max(changed, facts.st_ctime_ns)
    except OSError:
        return None
    return [size, modified, changed, inode, int.from_bytes(digest.digest()[:8], "big")]


def is_settled(stamp: list[int]) -> bool:
    """Whether a file's times are old enough that a change after them would be seen."""
    modified, changed = stamp[1:3]
    grain = (
        _COARSE_GRAIN_NS
        if modified % 1_000_000_000 == 0 == changed % 1_000_000_000
        else (_FINE_GRAIN_NS)
    )
    return time.time_ns() - max(modified, changed) > grain


def open_file_index(workspace: Workspace) -> FileIndex:
    """The workspace's memory of what its files hold."""
    return FileIndex(workspace.cache / "files.json")
