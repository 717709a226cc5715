"""Checkpoints: where a training stands after an epoch, so that a killed one goes on from there.

A checkpoint is two files, neither of which is ever unpickled: ``epoch-N.safetensors`` with every
tensor, and ``checkpoint.json``, which names it with its SHA-256 and is renamed into place after it.
A crash at any instant leaves the older checkpoint or the newer one.

Nothing is flushed to the disk: a killed process loses nothing by that, and what a power cut tears
apart fails its checksum, after which the training starts anew.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emcache.errors import EmcacheError
from emcache.progress import Reporter
from emcache.storage import atomic
from emcache.storage.hashing import file_sha256, json_sha256
from emcache.storage.locks import held
from emcache.storage.records import (
    UNFINISHED_PREFIX,
    Record,
    list_record_ids,
    new_record_id,
    read_record,
)
from emcache.validation import Content

CHECKPOINT_FORMAT = 1
"""Version of the files' layout; any other is started anew."""

_INDEX = "checkpoint.json"
# A checkpoint is written when this many times the last one's cost has gone by: 5 % at most.
_LEAST_PAUSE = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands."""

    tensors: Mapping[str, Tensor]
    """Everything that the next epoch depends on."""
    facts: Mapping[str, Any]
    """The same for what is not a tensor, as JSON values; ``epoch`` among them."""


@runtime_checkable
class Keeper(Protocol):
    """Keeps the newest progress of one training."""

    def load(self) -> Progress | None:
        """What an earlier process kept, or None."""

    def after_epoch(self, progress: Callable[[], Progress]) -> None:
        """Keep the progress, if it is time to."""


class _Index(Content):
    format: Literal[CHECKPOINT_FORMAT]  # type: ignore[valid-type]
    file: str
    file_sha256: str
    facts: dict[str, Any]
    sha256: str


class CheckpointFolder:
    """Keeps the newest progress in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cost = 0.0
        self._saved_at = -float("inf")
        self.epoch = 0
        """Epoch of the newest checkpoint; 0 where there is none."""
        self.damaged = False
        """Whether :meth:`load` found one that is not whole."""

    def load(self) -> Progress | None:
        """What an earlier process kept, or None where there is nothing whole."""
        path = self._folder / _INDEX
        if not path.exists():
            return None
        try:
            index = _Index.model_validate(json.loads(path.read_bytes()))
            file = self._folder / Path(index.file).name
            stated = index.model_dump(exclude={"sha256"})
            if json_sha256(stated) != index.sha256 or file_sha256(file) != index.file_sha256:
                raise ValueError("another checksum")
            progress = Progress(load_file(file), index.facts)
        except (OSError, ValueError, RecursionError, SafetensorError):
            self.damaged = True
            return None
        self.epoch = int(progress.facts["epoch"])
        return progress

    def after_epoch(self, progress: Callable[[], Progress]) -> None:
        """Keep the progress, unless that would cost more than 5 % of the time since the last."""
        started = time.monotonic()
        if started - self._saved_at < _LEAST_PAUSE * self._cost:
            return
        self._save(progress())
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started

    def _save(self, progress: Progress) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        epoch = int(progress.facts["epoch"])
        file = self._folder / f"epoch-{epoch}.safetensors"
        partial = file.with_suffix(".partial")
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in progress.tensors.items()}, partial
        )
        sha256 = file_sha256(partial)
        partial.replace(file)
        index: dict[str, Any] = {
            "format": CHECKPOINT_FORMAT,
            "file": file.name,
            "file_sha256": sha256,
            "facts": dict(progress.facts),
        }
        index["sha256"] = json_sha256(index)
        atomic.write_json(self._folder / _INDEX, index, durable=False)
        self.epoch = epoch
        for other in self._folder.glob("epoch-*"):
            if other != file:
                with suppress(OSError):
                    other.unlink()


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix/name``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stands under ``prefix/name``, by its name."""
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


_SEEDS = "seeds.json"
_KEY_LENGTH = 16


class Unfinished:
    """What is known of a command that trains one seed after the other."""

    def __init__(self, folder: Path, made: Mapping[str, str]) -> None:
        self._folder = folder
        self._ids = {**made, **_read(folder / _SEEDS)}

    def finished(self, seed: int) -> Record | None:
        """The record of a seed that is done."""
        if str(seed) not in self._ids:
            return None
        try:
            return read_record(self._folder.parent / self._ids[str(seed)])
        except EmcacheError:
            return None

    def begin(self, seed: int, kind: str) -> str:
        """The identifier that the seed's record has, settled before its training begins.

        A process that is killed between the record and any note of it would train the seed twice.
        """
        known = self._ids.get(str(seed))
        if known is None or (self._folder.parent / known).exists():
            # A damaged record is kept: somebody may be able to fix it.
            known = self._ids[str(seed)] = new_record_id(kind)
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self._folder / _SEEDS, self._ids)
        return known

    def keeper(self, seed: int) -> CheckpointFolder:
        """Where the seed's training keeps its progress."""
        return CheckpointFolder(self._place(seed))

    def end(self, seed: int) -> None:
        """Forget the progress of a seed whose record stands."""
        shutil.rmtree(self._place(seed), ignore_errors=True)

    def close(self) -> None:
        """The command is done: forget all of it."""
        # The list first: without it the other files do not show that anything was trained.
        with suppress(OSError):
            (self._folder / _SEEDS).unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, seed: int) -> Path:
        return self._folder / f"seed-{seed}"


@contextmanager
def unfinished_command(runs: Path, key: str, what: str, reporter: Reporter) -> Iterator[Unfinished]:
    """What an earlier run of the same command left; it is forgotten when the block ends normally.

    Args:
        runs: Folder of the records.
        key: SHA-256 of everything that decides what the command trains.
        what: What it does, as ``training vnc``.
        reporter: Receives a message about a command that was killed.
    """
    runs.mkdir(parents=True, exist_ok=True)
    folder = runs / f"{UNFINISHED_PREFIX}{key[:_KEY_LENGTH]}"
    lock = runs / f"{folder.name}.lock"
    there, begun = set(list_record_ids(runs)), _read(folder / _SEEDS)
    with held(lock, what, reporter) as waited:
        command = Unfinished(folder, {**begun, **_made(runs, key, there)} if waited else {})
        yield command
        command.close()
        lock.unlink(missing_ok=True)


def _made(runs: Path, key: str, before: Collection[str]) -> dict[str, str]:
    """Seeds with the records that a command of this key has made since."""
    made = {}
    for name in list_record_ids(runs):
        if name not in before:
            with suppress(EmcacheError):
                config = read_record(runs / name, verify_files=False).config
                if config.get("command") == key:
                    made[str(config.get("seed"))] = name
    return made


def _read(path: Path) -> dict[str, str]:
    """Identifiers of records by seeds; whatever is not one is not there."""
    try:
        ids = TypeAdapter(dict[str, str]).validate_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {seed: name for seed, name in ids.items() if Path(name).name == name}
