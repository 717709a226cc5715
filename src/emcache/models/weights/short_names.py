"""Words that stand for weights, and short names: ``[weights.NAME]`` in ``emcache.toml``.

``pretrained``, ``random:SEED`` and ``hf:REPOSITORY`` are words; a short name has a path and a hash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcache.errors import UsageError, WeightsError, WorkspaceError, suggest
from emcache.models.weights.files import SUFFIXES, WeightsFiles
from emcache.storage.hashing import is_utf8
from emcache.storage.workspace import Workspace, is_plain_name

PRETRAINED = "pretrained"
HUB = "hf:"
_RANDOM = re.compile(r"random:([0-9]{1,20})")
_FILE_LABEL = re.compile(r"file:.*@[0-9a-f]{8}", re.DOTALL)
_SHORT = 8
LARGEST_SEED = 2**31 - 1


def is_untrained(label: str) -> bool:
    """Whether a weights label stands for random weights."""
    return label.startswith("random:")


def is_named(text: str) -> bool:
    """Whether weights are named by a word that means the same in every workspace."""
    return text == PRETRAINED or is_untrained(text) or text.startswith(HUB)


def is_file_label(text: str) -> bool:
    """Whether a text is what an output calls a file: its name and the start of its hash."""
    return _FILE_LABEL.fullmatch(text) is not None


def hash_start(sha256: str) -> str:
    """What labels show of a hash."""
    return sha256[:_SHORT]


def file_label(name: str, sha256: str) -> str:
    """What outputs call a file that has no short name."""
    return f"file:{name}@{hash_start(sha256)}"


def hub_label(repository: str, commit: str) -> str:
    """What outputs call a repository of the hub; a branch moves, and a commit does not."""
    return f"{HUB}{repository}@{hash_start(commit)}"


def random_seed(text: str) -> int | None:
    """The seed of ``random:SEED``; None where a text is something else, or the seed too large."""
    match = _RANDOM.fullmatch(text)
    return seed if match and (seed := int(match[1])) <= LARGEST_SEED else None


def describe_untrained(weights: str) -> str:
    """The sentence that every output of random weights carries."""
    return f"weights {weights} are untrained: scores say what the head learned, not the backbone."


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
