"""Giving weights a short name, and how the named ones stand today."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emcache.errors import EmcacheError, WeightsError
from emcache.models.backbones.registry import find_backbone
from emcache.models.loading import describe_loaded, fit_weights
from emcache.models.weights.files import is_there, locate
from emcache.models.weights.reading import read_weights
from emcache.models.weights.short_names import (
    ShortName,
    check_short_name,
    read_short_names,
    register,
)
from emcache.progress import Reporter
from emcache.storage.file_index import open_file_index
from emcache.storage.workspace import Workspace


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
