"""A backbone with the very weights that were found and hashed, and short names for such weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from emcache.errors import EmcacheError, WeightsError
from emcache.models.backbones.base import BackboneModule, Loaded, build_backbone, random_backbone
from emcache.models.backbones.registry import BackboneSpec, find_backbone
from emcache.models.weights import Weights, state_sha256
from emcache.models.weights.files import WeightsFiles, is_there, locate, read_weights
from emcache.models.weights.short_names import (
    ShortName,
    check_short_name,
    read_short_names,
    register,
)
from emcache.progress import Quiet, Reporter
from emcache.storage.file_index import open_file_index
from emcache.storage.workspace import Workspace

# Kinds of models whose configurations name things as backbones' traits do.
_KINDS = ("dinov2", "dinov2_with_registers", "dinov3_vit", "clip", "clip_vision_model")
_LARGEST_CONFIG = 1 << 20


def load_backbone(
    spec: BackboneSpec, weights: Weights, device: torch.device, reporter: Reporter | None = None
) -> BackboneModule:
    """The backbone with its weights, frozen, on the device, in inference mode.

    Args:
        spec: Which backbone.
        weights: Found and hashed.
        device: Where it shall compute.
        reporter: Receives a message: which tensors of the files are not part of the backbone.

    Raises:
        WeightsError: The weights do not fit, or changed since they were hashed.
    """
    if weights.files is None:
        assert weights.seed is not None  # noqa: S101 - weights are files or a seed
        backbone = random_backbone(spec, weights.seed)
        unchanged = state_sha256(backbone.model.state_dict()) == weights.sha256
    else:
        backbone, loaded = fit_weights(spec, weights.files, weights.label)
        for sentence in describe_loaded(weights.label, loaded):
            (reporter or Quiet()).say(sentence)
        # Hours may lie between planning and loading; the key must be that of these very bytes.
        unchanged = weights.files.is_unchanged() or weights.files.sha256() == weights.sha256
    if not unchanged:
        raise WeightsError(
            f"the weights {weights.label} changed after they were hashed; run the command again.",
            subject=weights.label,
        )
    return backbone.eval().requires_grad_(False).to(device)


def fit_weights(
    spec: BackboneSpec, files: WeightsFiles, source: str
) -> tuple[BackboneModule, Loaded]:
    """A backbone with the weights of files, and what became of each of their tensors.

    Args:
        spec: Which backbone.
        files: One set of weights.
        source: What to call it in an error.

    Raises:
        WeightsError: The files cannot be read, do not fit, or are said to be of another model.
    """
    backbone = build_backbone(spec)
    read = read_weights(files)
    loaded = backbone.load(read.state, source)
    _check_config(files.config, backbone)
    beside = dict.fromkeys(read.beside, "beside the table of weights")
    return backbone, Loaded(loaded.used, {**loaded.spare, **beside}, loaded.remarks)


def describe_loaded(source: str, loaded: Loaded) -> list[str]:
    """What a user should hear of a file's tensors; nothing where all were used as they are."""
    sentences = [f"Weights {source}: {remark}." for remark in loaded.remarks]
    if spare := loaded.describe_spare():
        count = f"{len(loaded.used)} of {len(loaded.used) + len(loaded.spare)} tensors"
        sentences.append(f"Weights {source}: {count} make the backbone; left out: {spare}.")
    return sentences


def _check_config(path: Path, backbone: BackboneModule) -> None:
    """Refuse weights of a model that has the same tensors and computes other tokens of them."""
    said = _read_config(path)
    for name, own in backbone.traits().items():
        if name in said and said[name] != own:
            raise WeightsError(
                f"{path} says {name} is {said[name]!r:.80}, and {backbone.spec.name} has {own!r}; "
                f"choose the backbone that these weights were made for.",
                subject=path,
            )


def _read_config(path: Path) -> Mapping[str, Any]:
    """What a configuration of ``transformers`` says; nothing where it is none of a known kind."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_CONFIG:
            return {}
        said = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(said, dict) or said.get("model_type") not in _KINDS:
        return {}
    vision = said.get("vision_config")
    return vision if isinstance(vision, dict) else said


@dataclass(frozen=True, slots=True)
class NamedWeights:
    """A short name, and what its file is like today."""

    short: ShortName
    state: Literal["unchanged", "changed", "missing"]


def add_weights(
    workspace: Workspace, name: str, path: str, backbone: str | None, reporter: Reporter
) -> ShortName:
    """Give weights a short name, once they can be read.

    Args:
        workspace: Whose ``emcache.toml`` gets it.
        name: The short name.
        path: A file, an index of shards, or a folder with one of these.
        backbone: One that the weights have to fit; None to see only that they are weights.
        reporter: Receives a message: what they hold.

    Raises:
        UsageError: The name cannot be used.
        WeightsError: The name is taken, or the weights are not there, damaged or do not fit.
        BackboneError: The backbone is unknown.
    """
    check_short_name(name)
    spec = None if backbone is None else find_backbone(backbone)
    if not is_there(path):
        raise WeightsError(
            f"there is no weights file or folder {path:.1000}; expected a .safetensors, .pth or "
            f".bin file, an index of shards, or a folder with one of these.",
            subject=path,
        )
    files = locate(Path(path), "timm" if spec is None else spec.family)
    index = open_file_index(workspace)
    sha256 = files.sha256(index)
    index.save()
    if spec is None:
        count = len(read_weights(files).state)
        fitting = f"{count} tensors; --backbone NAME would show whether they fit"
    else:
        _, loaded = fit_weights(spec, files, files.path.name)
        for sentence in describe_loaded(name, loaded):
            reporter.say(sentence)
        fitting = f"{len(loaded.used)} tensors make {spec.name}"
    short = register(workspace, name, files, sha256)
    reporter.say(f"Weights {name}: {short.path}, {sha256[:8]}..., {fitting}.")
    return short


def list_weights(workspace: Workspace) -> list[NamedWeights]:
    """Every short name of a workspace; files that changed are read, others are not.

    Raises:
        WorkspaceError: The short names cannot be read.
    """
    index = open_file_index(workspace)
    listed = []
    for short in read_short_names(workspace).values():
        state: Literal["unchanged", "changed", "missing"] = "missing"
        if is_there(str(short.path)):
            try:
                same = locate(short.path, "timm").sha256(index) == short.sha256
            except (EmcacheError, OSError):
                # A shard is gone, or the file cannot be read.
                same = False
            state = "unchanged" if same else "changed"
        listed.append(NamedWeights(short, state))
    index.save()
    return listed
