"""Hostile weights, folders of weights, pickles and adapters."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import (
    as_json,
    attempt,
    cases,
    damaged,
    no_fields,
    replaced,
    twisted,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import TINY
from emcache.models.loading import fit_weights
from emcache.models.lora_files import CONFIG_FILE, WEIGHTS_FILE, check_adapter_config
from emcache.models.weights import read_weights_file
from emcache.models.weights.files import locate as locate_weights


class _Trap:
    """Unpickling this would make a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._made = function, arguments

    def __reduce__(self) -> Any:
        return self._made


def small_state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}


@functools.cache
def weight_bases() -> dict[str, bytes]:
    """Made once: old pickles hold addresses, whose digits differ from one to the next."""

    def stored(value: Any, **how: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, **how)
        return buffer.getvalue()

    return {
        "plain.safetensors": save(small_state()),
        "plain.pth": stored(small_state()),
        "wrapped.bin": stored({"model": small_state(), "epoch": 3}),
        "legacy.pth": stored(small_state(), _use_new_zipfile_serialization=False),
    }


def rezipped(data: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """A torch file with one part of its archive changed, and the archive whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            new.writestr(item, change(content) if item.filename.endswith(name) else content)
    return buffer.getvalue()


def use_weights(path: Path) -> None:
    state = read_weights_file(path)
    backbone = random_backbone(TINY, 0)
    backbone.load(state, "these")


@cases(100, 1000)
@given(data=st.data())
def test_weights(place: Path, data: st.DataObject) -> None:
    name, content = data.draw(damaged(weight_bases(), no_fields))
    if (
        name.endswith((".pth", ".bin"))
        and not name.startswith("legacy")
        and data.draw(st.booleans())
    ):
        whole = weight_bases()[name]
        change = data.draw(st.sampled_from(["data.pkl", "data.pkl", "data/0", "version"]))

        def damage(part: bytes) -> bytes:
            return data.draw(damaged({"p": part + b"\0" * 16}, no_fields))[1]

        content = rezipped(whole, change, damage)
    path = place / name
    path.write_bytes(content)
    attempt("weights", lambda: use_weights(path))


@cases(60, 900)
@given(data=st.data())
def test_safetensors_headers(place: Path, data: st.DataObject) -> None:
    whole = save(small_state())
    size = struct.unpack_from("<Q", whole)[0]
    header = json.loads(whole[8 : 8 + size])
    text = as_json(data.draw(twisted(header)))
    if data.draw(st.integers(0, 4)) == 0:
        # Twice the same key, and a key within a key's place.
        text = text[:-1] + b"," + text[1:]
    length = data.draw(
        st.sampled_from([len(text)] * 8 + [1 << 31, (1 << 63) - 1, (1 << 64) - 1, 0])
    )
    path = place / "header.safetensors"
    path.write_bytes(struct.pack("<Q", length) + text + whole[8 + size :])
    attempt("weights", lambda: use_weights(path))


SHARDED = {
    "metadata": {"total_size": 32},
    "weight_map": {"a.weight": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"},
}


CONFIG = {
    "model_type": "clip",
    "vision_config": {"hidden_act": "gelu", "num_attention_heads": 2, "layer_norm_eps": 1e-6},
}


@cases(40, 400)
@given(data=st.data())
def test_folders_of_weights(place: Path, data: st.DataObject) -> None:
    """An index of shards, and a configuration beside them, that say anything."""
    folder = place / "shards"
    folder.mkdir(exist_ok=True)
    for name, file in SHARDED["weight_map"].items():
        save_file({name: small_state()[name]}, folder / file)
    index = as_json(data.draw(st.one_of(st.just(SHARDED), twisted(SHARDED))))
    (folder / "m.safetensors.index.json").write_bytes(index)
    (folder / "config.json").write_bytes(as_json(data.draw(twisted(CONFIG))))
    state = random_backbone(TINY, 0).model.state_dict()
    save_file(state, place / "shards" / "m.safetensors")
    attempt(
        "weights",
        lambda: use_weights(folder / "m.safetensors"),
        lambda: fit_weights(TINY, locate_weights(folder / "m.safetensors", "tiny"), "these"),
        lambda: fit_weights(
            TINY, locate_weights(folder / "m.safetensors.index.json", "tiny"), "these"
        ),
        lambda: locate_weights(folder, "tiny"),
    )


@cases(40, 400)
@given(data=st.data())
def test_pickles(place: Path, data: st.DataObject) -> None:
    """Every way in that a pickle has; none may be gone through."""
    canary = place / "canary"
    command = f"touch {canary}"
    traps: list[Any] = [
        _Trap(os.system, command),
        _Trap(Path.touch, canary),
        _Trap(eval, f"__import__('os').system({command!r})"),
        _Trap(exec, f"open({str(canary)!r}, 'w')"),
        _Trap(open, str(canary), "w"),
        _Trap(torch.load, str(canary)),
        _Trap(getattr, os, "system"),
        _Trap(__import__, "antigravity"),
        _Trap(torch.zeros, 1 << 30, 1 << 30),
        _Trap(bytearray, 1 << 40),
        _Trap(torch.empty, 3),
        {1: torch.ones(2)},
        [torch.ones(2)],
        {"a": torch.ones(2, device="meta")},
        {"a": torch.eye(3).to_sparse()},
        {"a": torch.ones(1).expand(1 << 20, 1 << 20)},
        {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)},
        {"a": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
        {"cls_token": torch.ones(1, dtype=torch.complex64).expand(1, 1, 64)},
        torch.nn.Linear(2, 2),
        {"model": {"model": {"model": small_state()}}},
        {"a": torch.nn.Parameter(torch.ones(2))},
    ]
    trap = data.draw(st.sampled_from(range(len(traps))).map(traps.__getitem__))
    state = random_backbone(TINY, 0).model.state_dict()
    value = data.draw(
        st.sampled_from([trap, {"model": trap}, {"a": trap}, [trap], {**state, "pos_embed": trap}])
    )
    path = place / data.draw(st.sampled_from(["trap.pth", "trap.bin", "trap.safetensors"]))
    how = data.draw(st.sampled_from(["torch", "legacy", "pickle"]))
    try:
        if how == "pickle":
            path.write_bytes(pickle.dumps(value, protocol=data.draw(st.integers(0, 5))))
        else:
            torch.save(value, path, _use_new_zipfile_serialization=how == "torch")
    except (TypeError, AttributeError, RuntimeError, NotImplementedError, pickle.PicklingError):
        path.write_bytes(b"")
    attempt("weights", lambda: use_weights(path))
    assert not canary.exists(), "a pickle was carried out"


@pytest.fixture(scope="module")
def adapter_folder(place: Path) -> Path:
    """An adapter of the small backbone, as training saves it."""
    from emcache.models.lora import attach_adapter

    folder = place / "adapter"
    attach_adapter(random_backbone(TINY, 0), 4, 8.0, ("attn.qkv", "attn.proj"), 0).save(folder)
    return folder


@cases(15, 150)
@given(data=st.data())
def test_adapters(adapter_folder: Path, data: st.DataObject) -> None:
    from emcache.models.lora import load_adapter

    file = adapter_folder / data.draw(st.sampled_from([CONFIG_FILE, CONFIG_FILE, WEIGHTS_FILE]))
    if file.name == CONFIG_FILE:
        content = as_json(data.draw(twisted(json.loads(file.read_bytes()))))
    else:
        _, content = data.draw(damaged({"a": file.read_bytes()}, no_fields))
    backbone = random_backbone(TINY, 0)
    with replaced({file: content}):
        attempt(
            "weights",
            lambda: (check_adapter_config(adapter_folder), load_adapter(backbone, adapter_folder)),
        )
