"""Files of weights: found in a folder or an index of shards, hashed, and read.

Anyone may have made them: nothing is unpickled, and sizes are checked before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

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


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that have been found and hashed."""

    label: str
    """The name in every output; see :mod:`emcache.models.weights.short_names`."""
    sha256: str
    """Of the files' bytes; for random weights of the state's names, types, shapes and bytes."""
    files: WeightsFiles | None
    """Where the bytes are; None for random weights."""
    seed: int | None = None
    """Of random weights."""
    revision: str | None = None
    """Commit of the hub's repository that they come from, where they do."""


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


_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
# Trainers often wrap the tensors: {"model": {...}} or {"state_dict": {...}}.
_WRAPPERS = ("model", "state_dict", "teacher")
_DEEPEST = 8
# What torch and safetensors say of a damaged file.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


class ReadWeights(NamedTuple):
    """What files of weights hold."""

    state: Mapping[str, Tensor]
    """Tensors by name."""
    beside: tuple[str, ...]
    """Names of other tensors of the files, which stand beside the table of weights."""


def read_weights(files: WeightsFiles) -> ReadWeights:
    """All tensors of one file or of all shards.

    Raises:
        WeightsError: A file cannot be read, holds something else, or not what the index says.
    """
    state: dict[str, Tensor] = {}
    beside: list[str] = []
    for file, expected in files.shards.items():
        read = _read(file)
        if expected is not None and (odd := sorted(expected ^ read.state.keys())):
            what = "does not hold" if odd[0] in expected else "holds more:"
            raise WeightsError(
                f"{file} {what} {odd[0]!r:.200}, and {files.path.name} says otherwise; expected "
                f"shards as their index lists them: download the set again.",
                subject=file,
            )
        state.update(read.state)
        beside += read.beside
    return ReadWeights(state, tuple(beside))


def read_weights_file(file: Path) -> Mapping[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a torch file read with ``weights_only``.

    Nothing is unpickled but tensors and plain containers.

    Raises:
        WeightsError: The file cannot be read, or holds something else.
    """
    return _read(file).state


def _read(file: Path) -> ReadWeights:
    try:
        if file.suffix in _TORCH_SUFFIXES:
            state = torch.load(file, map_location="cpu", weights_only=True)
        else:
            state = load_file(file)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{file} cannot be read as weights ({reason}); expected a .safetensors file, or a "
            f".pth or .bin file that holds tensors only.",
            subject=file,
        ) from error
    beside: list[str] = []
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            others = {key: value for key, value in state.items() if key != wrapper}
            beside += _tensor_names(others)
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise WeightsError(
            f"{file} holds no plain table of tensors; expected weights by their names.",
            subject=file,
        )
    for name, tensor in state.items():
        if not _is_plain(tensor):
            raise WeightsError(
                f"{file} holds no plain numbers as {name[:200]!r}; expected a tensor whose values "
                f"all stand in the file.",
                subject=file,
            )
    return ReadWeights(state, tuple(beside))


def _tensor_names(value: Any, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Names of all tensors within plain containers, as ``optimizer.state.0.exp_avg``."""
    if isinstance(value, Tensor):
        yield prefix
    elif depth < _DEEPEST and isinstance(value, dict | list | tuple):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            inner = f"{name!s:.200}"
            yield from _tensor_names(part, f"{prefix}.{inner}" if prefix else inner, depth + 1)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has its values in memory: not on no device, sparse, or one value repeated.

    A tensor of a few bytes may claim any shape.
    """
    return (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_nested or tensor.is_complex())
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 over names, types, shapes and bytes of tensors, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
