"""Checkpoints: where a training stands after an epoch, so that a killed one goes on from there.

A checkpoint is two files, neither of which is ever unpickled: ``epoch-N.safetensors`` with every
tensor, and ``checkpoint.json``, which names it with its SHA-256 and is renamed into place after it.
A crash at any instant leaves the older checkpoint or the newer one.

Nothing is flushed to the disk: a killed process loses nothing by that, and what a power cut tears
apart fails its checksum, after which the training starts anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emcache.storage import atomic
from emcache.storage.hashing import file_sha256, json_sha256

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
    """The same for what is no tensor, as JSON values; ``epoch`` among them."""


@runtime_checkable
class Keeper(Protocol):
    """Keeps the newest progress of one training."""

    def load(self) -> Progress | None:
        """What an earlier process kept, or None."""

    def after_epoch(self, progress: Callable[[], Progress]) -> None:
        """Keep the progress, if it is time to."""


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
            index = json.loads(path.read_bytes())
            stated = index.pop("sha256")
            if stated != json_sha256(index) or index["format"] != CHECKPOINT_FORMAT:
                raise ValueError("another checksum or format")
            file = self._folder / Path(index["file"]).name
            if file_sha256(file) != index["file_sha256"]:
                raise ValueError("another checksum")
            progress = Progress(load_file(file), index["facts"])
            self.epoch = int(progress.facts["epoch"])
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            SafetensorError,
        ):
            self.damaged = True
            return None
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
