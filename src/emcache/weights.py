"""Weights: where they come from, and the hash of their bytes.

``--weights`` is ``pretrained`` (from the hub), ``random:SEED`` (untrained, to try things without a
network) or a file. Whatever the source, tokens are keyed by the bytes of the weights that made
them.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from emcache.backbones.build import random_backbone
from emcache.backbones.registry import BackboneSpec
from emcache.canonical import file_sha256
from emcache.errors import UsageError, WeightsError
from emcache.file_index import FileIndex

PRETRAINED = "pretrained"
_RANDOM = re.compile(r"random:([0-9]{1,20})")
_FILE_LABEL = re.compile(r"file:.*@[0-9a-f]{8}")
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_SHORT = 8
_LARGEST_SEED = 2**31 - 1
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
# What draws random weights, and so decides what a seed means.
_INITIALISERS = ("torch", "timm", "open_clip_torch")


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that have been found and hashed."""

    label: str
    """``pretrained``, ``random:SEED`` or ``file:NAME@HASH``: the name in every output."""
    sha256: str
    """Of the file's bytes; for random weights of the state's names, types, shapes and bytes."""
    file: Path | None
    """Where the bytes are; None for random weights."""
    seed: int | None
    """Of random weights."""


def is_untrained(label: str) -> bool:
    """Whether a weights label stands for random weights."""
    return label.startswith("random:")


def is_named(text: str) -> bool:
    """Whether weights are named by a word, and are no file."""
    return text == PRETRAINED or is_untrained(text)


def describe_untrained(weights: str) -> str:
    """The sentence that every output of random weights carries."""
    return f"weights {weights} are untrained: scores say what the head learned, not the backbone."


def find_weights(text: str, spec: BackboneSpec, index: FileIndex) -> Weights:
    """Find the weights named on the command line; hubs are asked only for ``pretrained``.

    Args:
        text: ``pretrained``, ``random:SEED`` or a path.
        spec: The backbone they are for.
        index: Remembers hashes of files that have not changed.

    Raises:
        UsageError: A text that is none of the three.
        WeightsError: No such file, or the hub cannot be reached.
    """
    if text == PRETRAINED:
        file = _download(spec)
        return Weights(PRETRAINED, index.answer(file, "bytes", file_sha256), file, None)
    if (match := _RANDOM.fullmatch(text)) and (seed := int(match[1])) <= _LARGEST_SEED:
        return Weights(text, _random_sha256(spec, seed, index), None, seed)
    if is_untrained(text) or (text == "random" and not _is_file(text)):
        raise UsageError(
            f"{text!r} has no seed; expected random:SEED, as random:0, up to {_LARGEST_SEED}.",
            subject=text,
        )
    if _FILE_LABEL.fullmatch(text):
        raise WeightsError(
            f"the weights {text} are known by their name and hash only; say where the file is with "
            f"--weights FILE.",
            subject=text,
        )
    file = Path(text)
    if not _is_file(text):
        raise WeightsError(
            f"there is no weights file {text}; expected pretrained, random:SEED or a "
            f".safetensors, .pth or .bin file.",
            subject=text,
        )
    sha256 = index.answer(file.resolve(), "bytes", file_sha256)
    return Weights(f"file:{file.name}@{sha256[:_SHORT]}", sha256, file.resolve(), None)


def are_at_hand(text: str, spec: BackboneSpec) -> bool:
    """Whether weights can be found without asking the hub."""
    if text != PRETRAINED:
        return is_untrained(text) or _is_file(text)
    if spec.hub is None:
        return False
    try:
        hf_hub_download(spec.hub.repository, spec.hub.name, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def read_weights_file(file: Path) -> Mapping[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a torch file read with ``weights_only``.

    Nothing is unpickled but tensors and plain containers.

    Raises:
        WeightsError: The file cannot be read, or holds something else.
    """
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
    # Trainers often wrap the tensors: {"model": {...}} or {"state_dict": {...}}.
    for wrapper in ("model", "state_dict", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
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
    return state


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


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:
        # A name that is too long for any file.
        return False


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 over names, types, shapes and bytes of tensors, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _download(spec: BackboneSpec) -> Path:
    if spec.hub is None:
        raise WeightsError(
            f"there are no pretrained weights of {spec.name}; use --weights random:SEED or a file.",
            subject=spec.name,
        )
    repository, name = spec.hub.repository, spec.hub.name
    try:
        # A cached copy is used without asking the hub.
        return Path(hf_hub_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(hf_hub_download(repository, name))
    except GatedRepoError as error:
        raise WeightsError(
            f"the hub gives {repository} only to those who accepted its licence; accept it there "
            f"and log in with `hf auth login`, or download {name} and use --weights FILE.",
            subject=repository,
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"the weights of {spec.name} cannot be fetched from the hub ({type(error).__name__}); "
            f"download {name} of {repository} on a machine with a network and use --weights FILE, "
            f"or try things out with --weights random:0.",
            subject=repository,
        ) from error


def _random_sha256(spec: BackboneSpec, seed: int, index: FileIndex) -> str:
    """Hash of an untrained backbone's state, remembered for these versions of the libraries."""
    versions = " ".join(f"{name}={version(name)}" for name in _INITIALISERS)
    question = f"random:{seed} {spec.family}:{spec.architecture} {versions}"
    # Built once for each seed; after that no model is needed to find a feature set.
    return str(
        index.memo(question, lambda: state_sha256(random_backbone(spec, seed).model.state_dict()))
    )
