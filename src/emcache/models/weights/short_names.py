"""Short names of weights: ``[weights.NAME]`` in ``emcache.toml``, each a path and its hash.

A short name stands for bytes, not for a place: a file that changed is an error, since tables with
that name would mix two backbones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcache.errors import UsageError, WeightsError, WorkspaceError, suggest
from emcache.models.weights.files import SUFFIXES, WeightsFiles
from emcache.models.weights.labels import PRETRAINED
from emcache.storage.hashing import is_utf8
from emcache.storage.workspace import Workspace, is_plain_name

_RESERVED = (PRETRAINED, "random", "hf", "file")
_SUFFIXES = (*SUFFIXES, ".json")


@dataclass(frozen=True, slots=True)
class ShortName:
    """A name for one file of weights, or one index of shards."""

    name: str
    stored: str
    """The path as ``emcache.toml`` has it: absolute, or relative to the workspace."""
    path: Path
    sha256: str
    """Of the weights when the name was given."""

    def check(self, sha256: str) -> None:
        """Refuse weights that are no longer those that were named.

        Raises:
            WeightsError: Their hash is another one.
        """
        if sha256 != self.sha256:
            raise WeightsError(
                f"the weights {self.name} changed since they were added: {self.path} has the hash "
                f"{sha256[:8]}..., and had {self.sha256[:8]}...; restore that file, or give the "
                f"new one a name of its own with `emcache weights add`.",
                subject=self.name,
            )


def check_short_name(name: str) -> None:
    """Refuse a name that could be taken for a file or for another kind of weights.

    Raises:
        UsageError: With the rule.
    """
    if not is_plain_name(name) or name in _RESERVED or name.endswith(_SUFFIXES):
        raise UsageError(
            f"{name!r:.200} cannot name weights; expected up to 80 letters, digits and . _ + - "
            f"(first a letter or digit), not the ending of a weights file, and none of "
            f"{', '.join(_RESERVED)}.",
            subject=name,
        )


def read_short_names(workspace: Workspace) -> dict[str, ShortName]:
    """The short names of a workspace, in the order of ``emcache.toml``.

    Raises:
        WorkspaceError: The file cannot be read, or an entry has no path or no hash.
        UsageError: A name that cannot be one.
    """
    return {
        name: _read(workspace, name, table) for name, table in workspace.weights_tables().items()
    }


def register(workspace: Workspace, name: str, files: WeightsFiles, sha256: str) -> ShortName:
    """Write a short name into ``emcache.toml``.

    Raises:
        UsageError: The name cannot be used.
        WeightsError: The name is taken, or the weights have one already.
    """
    check_short_name(name)
    tables = workspace.weights_tables()
    if _is_path_only(tables.get(name)):
        # Written by hand: its hash is what is being found out.
        del tables[name]
    known = {other: _read(workspace, other, table) for other, table in tables.items()}
    if name in known:
        raise WeightsError(
            f"the short name {name} is taken by {known[name].path}; choose another, or free it "
            f"with `emcache weights remove {name}`.",
            subject=name,
        )
    for other in known.values():
        if other.sha256 == sha256:
            raise WeightsError(
                f"{files.path} holds the same weights as the short name {other.name}; use that, or "
                f"free it first with `emcache weights remove {other.name}`.",
                subject=other.name,
            )
    # The folder's own links are followed, the file's is not: the hub's cache has its name there.
    path = files.path.parent.resolve() / files.path.name
    stored = path.relative_to(workspace.root) if path.is_relative_to(workspace.root) else path
    if not is_utf8(str(stored)):
        raise WeightsError(
            f"the name of {str(path)!r} is not UTF-8, as {workspace.config_path.name} has to be; "
            f"rename the file.",
            subject=path,
        )
    entry = ShortName(name, stored.as_posix(), path, sha256)
    workspace.add_weights(name, {"path": entry.stored, "sha256": sha256})
    return entry


def remove(workspace: Workspace, name: str) -> ShortName:
    """Take a short name out of ``emcache.toml``; the file stays.

    Raises:
        WeightsError: There is no such name.
    """
    known = read_short_names(workspace)
    if name not in known:
        raise WeightsError(
            f"there is no short name {name!r:.100}; {describe_known(name, known)}.", subject=name
        )
    workspace.remove_weights(name)
    return known[name]


def describe_known(text: str, known: Mapping[str, ShortName]) -> str:
    """The short names that there are, the closest first."""
    hint = suggest(text, known)
    return f"{hint}short names here: {', '.join(known) or 'none'}"


def _is_path_only(table: Any) -> bool:
    return isinstance(table, str) or (isinstance(table, dict) and list(table) == ["path"])


def _read(workspace: Workspace, name: str, table: Any) -> ShortName:
    check_short_name(name)
    match table:
        case {"path": str(path), "sha256": str(sha256)} if path and sha256:
            return ShortName(name, path, workspace.root / path, sha256)
        case str(path) | {"path": str(path)}:
            raise WorkspaceError(
                f"the short name {name} in {workspace.config_path} has a path and no hash of its "
                f"bytes; let `emcache weights add {name} {path:.200}` write it.",
                subject=name,
            )
    raise WorkspaceError(
        f"`weights.{name}` in {workspace.config_path} is not a table with a path and a sha256; "
        f"remove it, and let `emcache weights add` write it.",
        subject=name,
    )
