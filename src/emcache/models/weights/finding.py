"""Finding the weights that a text names, and the hash of their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from emcache.errors import UsageError, WeightsError
from emcache.models.backbones.build import random_backbone
from emcache.models.backbones.registry import BackboneSpec
from emcache.models.weights import hub, labels
from emcache.models.weights.files import WeightsFiles, is_there, locate
from emcache.models.weights.reading import state_sha256
from emcache.models.weights.short_names import ShortName, describe_known, read_short_names
from emcache.storage.file_index import FileIndex, open_file_index
from emcache.storage.workspace import Workspace

# What draws random weights, and so decides what a seed means.
_INITIALISERS = ("torch", "timm", "open_clip_torch")
_NO_NAMES: Mapping[str, ShortName] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that have been found and hashed."""

    label: str
    """The name in every output; see :mod:`emcache.models.weights.labels`."""
    sha256: str
    """Of the files' bytes; for random weights of the state's names, types, shapes and bytes."""
    files: WeightsFiles | None
    """Where the bytes are; None for random weights."""
    seed: int | None = None
    """Of random weights."""
    revision: str | None = None
    """Commit of the hub's repository that they come from, where they do."""


def find_workspace_weights(workspace: Workspace, text: str, spec: BackboneSpec) -> Weights:
    """Find weights in a workspace, with its short names and what it remembers of files.

    Args:
        workspace: Whose ``emcache.toml`` has the short names.
        text: As :func:`find_weights` takes it.
        spec: The backbone they are for.

    Raises:
        UsageError: A text that can be no weights.
        WeightsError: They are not there, changed, or the hub cannot be reached.
    """
    names = _NO_NAMES if labels.is_named(text) else read_short_names(workspace)
    index = open_file_index(workspace)
    weights = find_weights(text, spec, index, names)
    index.save()
    return weights


def find_weights(
    text: str, spec: BackboneSpec, index: FileIndex, names: Mapping[str, ShortName] = _NO_NAMES
) -> Weights:
    """Find the weights named on the command line; the hub is asked for what it alone has.

    Args:
        text: ``pretrained``, ``random:SEED``, ``hf:REPOSITORY[@REVISION]``, a short name, a path,
            or the label of a file that the index remembers.
        spec: The backbone they are for.
        index: Remembers hashes of files that have not changed, and where labelled files were.
        names: Short names.

    Raises:
        UsageError: A text that can be no weights.
        WeightsError: They are not there, changed, or the hub cannot be reached.
    """
    if text == labels.PRETRAINED:
        found = hub.find_pretrained(spec)
        files = found.files.stamped()
        return Weights(text, files.sha256(index), files, revision=found.commit)
    if (seed := labels.random_seed(text)) is not None:
        return Weights(text, _random_sha256(spec, seed, index), None, seed)
    if labels.is_untrained(text) or (text == "random" and not is_there(text)):
        raise UsageError(
            f"{text!r} has no seed; expected random:SEED, as random:0, up to "
            f"{labels.LARGEST_SEED}.",
            subject=text,
        )
    if text.startswith(labels.HUB):
        found = hub.find_on_hub(text, spec)
        files = found.files.stamped()
        label = labels.hub_label(found.repository, found.commit or hub.MAIN)
        return Weights(label, files.sha256(index), files, revision=found.commit)
    if text in names:
        return _of_short_name(names[text], spec, index)
    if is_there(text):
        return _of_path(Path(text), spec, index, names)
    return _remembered(text, spec, index, names)


def are_at_hand(text: str, spec: BackboneSpec, workspace: Workspace) -> bool:
    """Whether weights can be found without asking the hub.

    Raises:
        UsageError: A text that can be no weights.
        WorkspaceError: The short names cannot be read.
    """
    if text == labels.PRETRAINED:
        return hub.is_pretrained_at_hand(spec)
    if labels.is_untrained(text):
        return True
    if text.startswith(labels.HUB):
        return hub.find_in_cache(text, spec) is not None
    return is_there(text) or text in read_short_names(workspace)


def _of_short_name(short: ShortName, spec: BackboneSpec, index: FileIndex) -> Weights:
    if not is_there(str(short.path)):
        raise WeightsError(
            f"the file of the short name {short.name} is not there ({short.path}); restore it, or "
            f"name the file where it is now with `emcache weights remove {short.name}` and "
            f"`emcache weights add {short.name} PATH`.",
            subject=short.name,
        )
    files = locate(short.path, spec.family).stamped()
    sha256 = files.sha256(index)
    short.check(sha256)
    _remember(index, short.name, short.path, sha256)
    return Weights(short.name, sha256, files)


def _of_path(
    path: Path, spec: BackboneSpec, index: FileIndex, names: Mapping[str, ShortName]
) -> Weights:
    files = locate(path, spec.family).stamped()
    sha256 = files.sha256(index)
    # One set of weights has one name, however it was found.
    short = next((short.name for short in names.values() if short.sha256 == sha256), None)
    label = short or labels.file_label(files.name, sha256)
    _remember(index, label, path, sha256)
    return Weights(label, sha256, files)


def _remembered(
    text: str, spec: BackboneSpec, index: FileIndex, names: Mapping[str, ShortName]
) -> Weights:
    """Weights by the label that an output gave them: under a short name, or where they were."""
    is_file = labels.is_file_label(text)
    start = text.rpartition("@")[2] if is_file else index.recall(_key(text))
    for short in names.values() if start else ():
        if short.sha256.startswith(str(start)) and is_there(str(short.path)):
            found = _of_short_name(short, spec, index)
            return Weights(text, found.sha256, found.files)
    last = ""
    match index.recall(_place(start)):
        case {"path": str(path), "sha256": str(sha256)}:
            last = f"; they were {path}, which is not there any more"
            if is_there(path):
                files = locate(Path(path), spec.family).stamped()
                if files.sha256(index) == sha256:
                    return Weights(text, sha256, files)
                last = f"; they were {path}, which has changed since"
    if last or is_file:
        raise WeightsError(
            f"the weights {text} are known by their name and hash only{last}: say where the file "
            f"is with --weights FILE.",
            subject=text,
        )
    raise WeightsError(
        f"there is no weights file {text:.1000}; expected pretrained, random:SEED, hf:REPOSITORY, "
        f"a short name, a folder or a .safetensors, .pth or .bin file ("
        f"{describe_known(text, names)}).",
        subject=text,
    )


def _remember(index: FileIndex, label: str, path: Path, sha256: str) -> None:
    """Keep where bytes were last, by the start of their hash, which labels of files have."""
    start = labels.hash_start(sha256)
    index.remember(_key(label), start)
    index.remember(_place(start), {"path": str(path.absolute()), "sha256": sha256})


def _key(label: str) -> str:
    return f"weights {label}"


def _place(start: object) -> str:
    return f"weights @{start}"


def _random_sha256(spec: BackboneSpec, seed: int, index: FileIndex) -> str:
    """Hash of an untrained backbone's state, remembered for these versions of the libraries."""
    versions = " ".join(f"{name}={version(name)}" for name in _INITIALISERS)
    question = f"random:{seed} {spec.family}:{spec.architecture} {versions}"
    # Built once for each seed; after that no model is needed to find a feature set.
    return str(
        index.memo(question, lambda: state_sha256(random_backbone(spec, seed).model.state_dict()))
    )
