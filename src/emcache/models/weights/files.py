"""Weights on the disk: one file, a file in several shards with its index, or a folder of either.

A folder is looked into as ``transformers`` does: the names that publishers use are known, and
safetensors come before pickles, which hold the same. Whatever else could be meant is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emcache.errors import WeightsError
from emcache.storage.file_index import FileIndex, file_stamp, is_settled
from emcache.storage.hashing import file_sha256, json_sha256

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.(safetensors|bin)")
_FORMATS = ("{}.safetensors", "{}.bin")
# In the order of preference; the names of transformers, and of OpenCLIP.
_STEMS = ("model", "pytorch_model")
_CLIP_STEMS = ("open_clip_model", "open_clip_pytorch_model")
# What trainers leave beside the weights.
_NO_WEIGHTS = re.compile(
    r"(optimizer|scheduler|scaler|training_args|rng_state(_\d+)?)\.(pt|pth|bin)"
)


@dataclass(frozen=True, slots=True)
class WeightsFiles:
    """Files that together are one set of weights."""

    name: str
    """What the set is called in outputs: of the file, or of the folder that was named."""
    path: Path
    """The file, or the index of the shards."""
    shards: Mapping[Path, frozenset[str] | None]
    """Every file with tensors, and which they are; one file with None where there is no index."""
    stamps: tuple[list[int] | None, ...] = ()
    """Sizes and times of the files before they were hashed."""

    @property
    def config(self) -> Path:
        """Where ``transformers`` says what the tensors do not show."""
        return self.path.with_name("config.json")

    def stamped(self) -> WeightsFiles:
        """The same, with the sizes and times of now."""
        return replace(self, stamps=self._stamps())

    def sha256(self, index: FileIndex | None = None) -> str:
        """Hex SHA-256 of the file's bytes; of several, over the hashes of all.

        Args:
            index: Remembers hashes of files that have not changed; without it all are read.
        """
        hashes = sorted(
            file_sha256(file)
            if index is None
            else index.answer(file.resolve(), "bytes", file_sha256)
            for file in self.shards
        )
        return hashes[0] if self.path in self.shards else json_sha256(hashes)

    def is_unchanged(self) -> bool:
        """Whether sizes and times say that the files are those that were hashed."""
        return self._stamps() == self.stamps and all(
            stamp is not None and is_settled(stamp) for stamp in self.stamps
        )

    def _stamps(self) -> tuple[list[int] | None, ...]:
        return tuple(file_stamp(file.resolve()) for file in self.shards)


def is_there(text: str) -> bool:
    """Whether a text names a file or folder; a device or pipe is neither."""
    try:
        return Path(text).is_file() or Path(text).is_dir()
    except (OSError, ValueError):
        # A name that is too long for any file, or holds a NUL.
        return False


def locate(path: Path, family: str) -> WeightsFiles:
    """The files of a set of weights.

    Args:
        path: A file of tensors, an index of shards, or a folder with one of these.
        family: Of the backbone: a repository of OpenCLIP's has the same tower under two names.

    Raises:
        WeightsError: Nothing of the kind is there, more than one, or a shard is missing.
    """
    # As it was named, links and all: a cache of the hub links to files without names.
    path = path.absolute()
    if path.is_dir():
        try:
            names = [entry.name for entry in path.iterdir() if entry.is_file()]
        except OSError as error:
            raise WeightsError(
                f"the folder {path} cannot be listed ({error.strerror}); let it be read.",
                subject=path,
            ) from error
        chosen = path / choose(names, family, f"the folder {path}")
        return _open(chosen, _folder_name(path))
    if _SHARD.fullmatch(path.name):
        raise WeightsError(
            f"{path} is one shard of several; name the folder, or the index beside it.",
            subject=path,
        )
    return _open(path, path.name)


def choose(names: Collection[str], family: str, where: str) -> str:
    """The one file, or index of shards, that a folder or repository has weights in.

    Args:
        names: Of all files at its top.
        family: Of the backbone.
        where: What to call the place in an error.

    Raises:
        WeightsError: There is none, or there are two that need not be the same.
    """
    stems = (*_STEMS, *_CLIP_STEMS)
    first = _CLIP_STEMS if family == "open_clip" else _STEMS
    ordered = sorted(stems, key=lambda stem: stem not in first)
    known = [
        name
        for stem in ordered
        for form in _FORMATS
        for name in (form.format(stem), f"{form.format(stem)}.index.json")
    ]
    here = [name for name in known if name in names]
    others = sorted(
        name
        for name in names
        if name.endswith((*SUFFIXES, *_INDEX_SUFFIXES))
        and name not in known
        and not _SHARD.fullmatch(name)
        and not _NO_WEIGHTS.fullmatch(name)
    )
    twice = [[name, f"{name}.index.json"] for name in here if f"{name}.index.json" in here]
    rivals = twice[0] if twice else [*here[:1], *others]
    if len(rivals) > 1:
        raise WeightsError(
            f"{where} holds both {rivals[0]} and {rivals[1]}, which need not be the same; name "
            f"one file.",
            subject=where,
        )
    if not rivals:
        shards = sorted(name for name in names if _SHARD.fullmatch(name))
        held = f"the shard {shards[0]} and no index of it" if shards else "no weights"
        raise WeightsError(
            f"{where} holds {held}; expected model.safetensors, pytorch_model.bin, either with "
            f".index.json and its shards, or one {', '.join(SUFFIXES[:-1])} or .bin file.",
            subject=where,
        )
    return rivals[0]


def is_index(name: str) -> bool:
    """Whether a file's name is that of an index of shards."""
    return name.endswith(".index.json")


def read_index(path: Path) -> dict[str, frozenset[str]]:
    """Names of the shards that an index lists, each with the tensors in it.

    Raises:
        WeightsError: It is not an index, or names what is not beside it.
    """
    try:
        content: Any = json.loads(path.read_bytes())
        places = content["weight_map"]
        if not isinstance(places, dict) or not places:
            raise TypeError("its weight_map is not a table")
        shards: dict[str, set[str]] = {}
        for tensor, file in places.items():
            shards.setdefault(file, set()).add(tensor)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, TypeError) else type(error).__name__
        raise WeightsError(
            f"{path} is not an index of shards ({reason:.200}); expected a weight_map of file "
            f"names, as transformers writes it.",
            subject=path,
        ) from error
    for file in shards:
        if (
            not isinstance(file, str)
            or Path(file).name != file
            or "\\" in file
            or "\0" in file
            or not file.endswith(SUFFIXES)
        ):
            raise WeightsError(
                f"{path} names {file!r:.200} as a shard; expected the name of a file of tensors in "
                f"its own folder.",
                subject=path,
            )
    return {file: frozenset(tensors) for file, tensors in shards.items()}


def _open(path: Path, name: str) -> WeightsFiles:
    if not is_index(path.name):
        return WeightsFiles(name, path, {path: None})
    shards = {path.with_name(file): tensors for file, tensors in read_index(path).items()}
    for number, shard in enumerate(shards, start=1):
        if not shard.is_file():
            raise WeightsError(
                f"{shard} is not there, which {path.name} names as shard {number} of "
                f"{len(shards)}; expected all of them beside it: download the rest.",
                subject=shard,
            )
    return WeightsFiles(name, path, shards)


def _folder_name(folder: Path) -> str:
    """What people call a folder: of a snapshot in the hub's cache, the repository."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2] or folder.name
    return folder.name if folder.name not in ("", "..") else folder.resolve().name
