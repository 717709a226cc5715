"""Saved LoRA adapters as files, in PEFT's own format; :mod:`emcache.models.lora` puts them to work.

A module of its own, since importing PEFT takes seconds, and a frozen backbone needs none of it.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from pathlib import Path

from emcache.errors import AdapterError
from emcache.storage.hashing import file_sha256, json_sha256

ADAPTER_FOLDER = "adapter"
"""Where a record keeps its adapter."""
CONFIG_FILE = "adapter_config.json"
"""PEFT's name for an adapter's configuration."""
WEIGHTS_FILE = "adapter_model.safetensors"
"""PEFT's name for an adapter's weights."""


_LARGEST_RANK = 4096
_LARGEST_ALPHA = 1e6
_PARTS = ("r", "lora_alpha", "target_modules")
_PLAIN = re.compile(r"[A-Za-z0-9_.|()\\+-]{1,2000}")
# What plain LoRA has, where it is not simply absent or off.
_AS_USUAL: Mapping[str, object] = {
    "bias": "none",
    "init_lora_weights": True,
    "lora_dropout": 0.0,
    "megatron_core": "megatron.core",
    "peft_type": "LORA",
    "qalora_group_size": 16,
}
# What only tells where an adapter comes from.
_NOTES = ("base_model_name_or_path", "inference_mode", "peft_version", "revision")


def check_adapter_config(folder: Path) -> None:
    """Refuse a configuration that asks PEFT for more than plain LoRA, before PEFT reads it.

    PEFT takes the rank's memory before it looks at the weights, matches layers by any pattern, and
    looks on the hub for what is not in the folder.

    Raises:
        AdapterError: No adapter, or one with a setting that is not read.
    """
    try:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(errno.ENOENT, f"{name} is not there")
        content = json.loads((folder / CONFIG_FILE).read_bytes())
    except OSError as error:
        raise _no_adapter(folder, str(error.strerror)) from error
    except (RecursionError, ValueError) as error:
        raise _no_adapter(folder, str(error)) from error
    if not isinstance(content, dict):
        raise _no_adapter(folder, f"{CONFIG_FILE} is not a table")
    rank, alpha, layers = (content.get(name) for name in _PARTS)
    fits = {
        "r": type(rank) is int and 0 < rank <= _LARGEST_RANK,
        "lora_alpha": isinstance(alpha, int | float) and 0 < alpha < _LARGEST_ALPHA,
        "target_modules": isinstance(layers, str) and bool(_PLAIN.fullmatch(layers)),
    }
    for name, value in content.items():
        if name in _NOTES:
            fits[name] = value is None or isinstance(value, str | bool)
        elif name not in _PARTS:
            # Other methods, other layers, and modules that PEFT would import by their names.
            fits[name] = value in (None, False, {}, []) or value == _AS_USUAL.get(name)
    for name, holds in fits.items():
        if not holds:
            raise AdapterError(
                f"the adapter in {folder} has {name} = {content.get(name)!r:.80}, which is "
                f"not read; expected plain LoRA as emcache saves it.",
                subject=folder,
            )


def _no_adapter(folder: Path, why: str) -> AdapterError:
    return AdapterError(
        f"{folder} holds no LoRA adapter ({why}); expected {CONFIG_FILE} and {WEIGHTS_FILE} as "
        f"PEFT saves them.",
        subject=folder,
    )


def adapter_sha256(folder: Path) -> str:
    """Hex SHA-256 of the bytes of a saved adapter: its weights, and the scale and layers they have.

    Raises:
        AdapterError: The folder holds no adapter.
    """
    try:
        return json_sha256([file_sha256(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)])
    except OSError as error:
        raise _no_adapter(folder, str(error.strerror)) from error
