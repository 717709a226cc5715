"""Records: what a command leaves behind, as a folder of plain files.

A record is the truth about one command; the warehouse is an index over records and can be rebuilt
from them. The folder is written under a temporary name and renamed when whole. ``record.json``
carries the SHA-256 of every other file and of itself, checked before anything is parsed: a flipped
bit in a Parquet file can otherwise change a value in silence.

``record.json``
    ========================= ====================================================================
    ``format``                :data:`RECORD_FORMAT`
    ``id``, ``kind``          the folder's name; ``dataset``, ``audit``, ``extract``,
                              ``train-head``, ``train-lora``, ``train-full``, ``few-label``,
                              ``train-unet``, ``zero-shot``, ``run-mark``, ``dataset-rename``,
                              ``evaluate``, ``metrics`` or ``predict``
    ``status``                ``finished``
    ``started_at``            ISO 8601, UTC; also ``finished_at``
    ``seconds``               wall-clock time between the two
    ``versions``, ``host``    packages and machine
    ``config``                the kind's own values, JSON
    ``files``                 ``{name: {"bytes", "sha256"}}`` of every other file
    ``sha256``                of the canonical JSON of all the above
    ========================= ====================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from emcache._version import __version__
from emcache.errors import FormatVersionError, RecordError
from emcache.storage import atomic
from emcache.storage.hashing import FileFacts, file_sha256, is_inside, json_sha256
from emcache.validation import Content, Misfit, check

if TYPE_CHECKING:
    import polars as pl

RECORD_FORMAT = 1
"""Version of the record's layout; a reader refuses a newer one."""

_RECORDED_PACKAGES = (
    "torch",
    "timm",
    "monai",
    "scikit-learn",
    "scikit-image",
    "zarr",
    "numpy",
    "pillow",
    "polars",
)
DRAFT_PREFIX = ".draft-"
"""Beginning of a record's folder while it is written."""
UNFINISHED_PREFIX = ".training-"
"""Beginning of the folder of a training's checkpoints."""


@dataclass(frozen=True, slots=True)
class Record:
    """A finished record, as read from its folder."""

    folder: Path
    """``runs/<id>``."""
    content: Mapping[str, Any]
    """What ``record.json`` holds."""

    @property
    def id(self) -> str:
        """Time-sortable identifier, also the folder's name."""
        return str(self.content["id"])

    @property
    def kind(self) -> str:
        """``dataset``, ``audit``, ``extract``, ``train-head`` and others."""
        return str(self.content["kind"])

    @property
    def config(self) -> Mapping[str, Any]:
        """The kind's own values."""
        config: Mapping[str, Any] = self.content["config"]
        return config

    def has(self, name: str) -> bool:
        """Whether the record holds the file ``name``."""
        return name in self.content["files"]

    def file(self, name: str) -> Path:
        """Path of a file of the record.

        Raises:
            RecordError: The record has no such file.
        """
        if not self.has(name):
            raise RecordError(
                f"record {self.id} holds no {name}; it holds "
                f"{', '.join(self.content['files']) or 'no files'}.",
                subject=name,
            )
        return self.folder / name


def _is_moment(text: str) -> str:
    datetime.fromisoformat(text).astimezone(UTC)
    return text


_Moment = Annotated[str, AfterValidator(_is_moment)]


class _Content(Content):
    id: str
    kind: str
    status: str
    started_at: _Moment
    finished_at: _Moment
    seconds: float
    versions: dict[str, str]
    host: dict[str, Any]
    config: dict[str, Any]
    files: dict[str, FileFacts]


class Draft:
    """A record being written; see :func:`new_record`."""

    def __init__(self, runs: Path, kind: str, record_id: str | None) -> None:
        self._runs = runs
        self._started = time.time()
        self._clock = time.perf_counter()
        self.id = record_id or new_record_id(kind)
        self.kind = kind
        self.config: dict[str, Any] = {}
        # Made with the first file, so that a command that is killed while it works leaves nothing.
        # Where locks do nothing, two processes may write the same record.
        self.folder = runs / f"{DRAFT_PREFIX}{self.id}-{secrets.token_hex(3)}"
        if record_id is not None:
            # What a process that was killed left of the same record.
            shutil.rmtree(self.folder, ignore_errors=True)
        self._record: Record | None = None

    def began(self, seconds: float) -> None:
        """Count from so many seconds ago, for work that was done before the record was opened."""
        self._started -= seconds
        self._clock -= seconds

    def write_table(self, name: str, frame: pl.DataFrame) -> None:
        """Add a Parquet file."""
        frame.write_parquet(self.path(name))

    def path(self, name: str) -> Path:
        """Where to write another file; its folder is made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self) -> Record:
        """Hash every file, write ``record.json``, and rename the folder into place.

        Called once more, it returns the same record.
        """
        if self._record is not None:
            return self._record
        self.folder.mkdir(parents=True, exist_ok=True)
        names = sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file()
        )
        for name in names:
            atomic.sync_file(self.folder / name)
        content: dict[str, Any] = {
            "format": RECORD_FORMAT,
            "id": self.id,
            "kind": self.kind,
            "status": "finished",
            "started_at": datetime.fromtimestamp(self._started, UTC).isoformat(),
            "finished_at": datetime.now(UTC).isoformat(),
            "seconds": time.perf_counter() - self._clock,
            "versions": package_versions(),
            "host": {
                "machine": platform.machine(),
                "system": platform.system(),
                "cores": os.cpu_count(),
            },
            "config": self.config,
            "files": {
                name: {
                    "bytes": (self.folder / name).stat().st_size,
                    "sha256": file_sha256(self.folder / name),
                }
                for name in names
            },
        }
        content["sha256"] = json_sha256(content)
        atomic.write_json(self.folder / "record.json", content)
        final = self._runs / self.id
        try:
            self.folder.rename(final)
        except OSError:
            if not final.exists():
                raise
            # Two processes that make one thing settle on one record: the first to finish wins.
            self._record = read_record(final)
            self.discard()
            return self._record
        atomic.sync_folder(self._runs)
        self._record = Record(final, content)
        return self._record

    def discard(self) -> None:
        """Remove what was written, if it is not a finished record yet."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def new_record(runs: Path, kind: str, record_id: str | None = None) -> Iterator[Draft]:
    """Open a draft; leave the block normally to keep it, by an exception to discard it.

    Fill ``draft.config`` (JSON values) and add files; the record appears in ``runs`` only when the
    block ends, or when it calls ``draft.finish()`` itself. ``record_id`` is for a record whose
    identifier was settled before (see :func:`new_record_id`).
    """
    draft = Draft(runs, kind, record_id)
    try:
        yield draft
        draft.finish()
    except BaseException:
        draft.discard()
        raise


def new_record_id(kind: str) -> str:
    """A time-sortable identifier that no other record has."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    return f"{moment}-{kind}-{secrets.token_hex(3)}"


def package_versions() -> dict[str, str]:
    """Versions of emcache, Python and the packages that shape a result."""
    versions = {"emcache": __version__, "python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def list_record_ids(runs: Path) -> list[str]:
    """Identifiers of the finished records, oldest first; empty where ``runs`` is not there."""
    if not runs.is_dir():
        return []
    return sorted(
        entry.name for entry in os.scandir(runs) if entry.is_dir() and entry.name[0] != "."
    )


def read_record(folder: Path, *, verify_files: bool = True) -> Record:
    """Read a record, checking ``record.json`` and (by default) every file against its SHA-256.

    Raises:
        RecordError: Something is missing, damaged, or in the wrong folder.
        FormatVersionError: Written by a newer emcache.
    """
    path = folder / "record.json"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(
            f"{folder} holds no record.json, so it is not a record; restore the folder from a "
            f"copy, or remove it.",
            subject=folder,
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, "record.json", str(error)) from error
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise _damaged(folder, "record.json", "it is not a record's JSON object")
    # Before the format: a flipped byte can make any number of it.
    try:
        computed = json_sha256({key: content[key] for key in content if key != "sha256"})
    except (ValueError, RecursionError) as error:
        # Python's JSON reads NaN and lone surrogates, which no record has.
        raise _damaged(folder, "record.json", str(error)) from error
    if content.get("sha256") != computed:
        raise _damaged(folder, "record.json", "its checksum does not match")
    if content["format"] > RECORD_FORMAT:
        raise FormatVersionError(
            f"record {folder.name} has format {content['format']}, this emcache reads up to "
            f"{RECORD_FORMAT}; upgrade emcache.",
            subject=folder,
        )
    found = check(_Content, content)
    if isinstance(found, Misfit):
        raise _damaged(folder, "record.json", f"its {found.key:.100} is missing or of another kind")
    if content["id"] != folder.name:
        raise _damaged(folder, "record.json", f"it belongs to record {content['id']!r}")
    for name in content["files"]:
        if not is_inside(name):
            raise _damaged(folder, "record.json", f"it lists a file {name!r} outside its folder")
    if verify_files:
        for name, facts in found.files.items():
            _check_file(folder, name, facts)
    return Record(folder, content)


def _check_file(folder: Path, name: str, facts: FileFacts) -> None:
    path = folder / name
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _damaged(folder, f"{name:.200}", "it is not a plain file")
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        raise _damaged(folder, name, "it is missing") from None
    except OSError as error:
        why = f"it cannot be read ({error.strerror})"
        raise _damaged(folder, f"{name:.200}", why) from error
    if size != facts.bytes:
        raise _damaged(folder, name, f"it has {size} bytes instead of {facts.bytes}")
    if digest != facts.sha256:
        raise _damaged(folder, name, "its checksum does not match")


def _damaged(folder: Path, name: str, why: str) -> RecordError:
    return RecordError(
        f"record {folder.name} is damaged: {name}: {why}; restore the folder from a copy, or "
        f"remove it and run the command again.",
        subject=folder,
    )
