"""Training commands that are not finished: which seeds are done, and where the next stands.

::

    runs/.training-<key>/            the key is that of everything that decides what is trained
        seeds.json                   which record each seed has, or will have
        seed-0/checkpoint.json ...   see emcache.training.checkpoints

The same command, run again after it was killed, finds the folder and goes on: seeds whose records
stand are done, the next goes on from its checkpoint. A command removes the folder once it has shown
its result, so that running it once more trains anew. Run while the first still trains, it waits and
takes the records that the first made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from emcache.errors import EmcacheError
from emcache.progress import Reporter
from emcache.storage import atomic
from emcache.storage.locks import held
from emcache.storage.records import Record, list_record_ids, new_record_id, read_record
from emcache.training.checkpoints import CheckpointFolder

UNFINISHED_PREFIX = ".training-"
"""How the folders' names begin."""

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
            # One that stands and is not sound is kept for whoever can mend it.
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
        # The list first: by what else is there, nobody can tell that anything was trained.
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
        reporter: Hears of a command that was killed.
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
        ids = json.loads(path.read_bytes())
        return {str(seed): str(name) for seed, name in ids.items() if Path(name).name == name}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}
