"""Reading tensors out of files that anyone may have made.

Nothing is unpickled but tensors and plain containers, and every tensor has its values in the file.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from emcache.errors import WeightsError
from emcache.models.weights.files import WeightsFiles

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
