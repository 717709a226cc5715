"""Finding the weights that a text names, and the hash of their bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from emcache.errors import EmcacheError, UsageError, WeightsError
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import BackboneSpec
from emcache.models.weights.files import (
    Weights,
    WeightsFiles,
    choose,
    is_index,
    is_there,
    locate,
    read_index,
    state_sha256,
)
from emcache.models.weights.short_names import (
    HUB,
    LARGEST_SEED,
    PRETRAINED,
    ShortName,
    describe_known,
    file_label,
    hash_start,
    hub_label,
    is_file_label,
    is_named,
    is_untrained,
    random_seed,
    read_short_names,
)
from emcache.storage.file_index import FileIndex, open_file_index
from emcache.storage.workspace import Workspace

MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_COMMIT_START = re.compile(r"[0-9a-f]{7,40}")
# A revision names a file in the cache.
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_CONFIG = "config.json"


class HubWeights(NamedTuple):
    """Weights that lie in the hub's cache."""

    repository: str
    files: WeightsFiles
    commit: str | None
    """Of the repository; None where the cache does not say."""


def parse_hub(text: str) -> tuple[str, str]:
    """Repository and revision of ``hf:REPOSITORY[@REVISION]``.

    Raises:
        UsageError: Something else.
    """
    repository, _, revision = text.removeprefix(HUB).partition("@")
    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if "@" not in text:
        revision = MAIN
    if not repository or not _REVISION.fullmatch(revision):
        raise UsageError(
            f"{text!r:.200} names no repository of the hub; expected hf:REPOSITORY or "
            f"hf:REPOSITORY@REVISION, as hf:facebook/dinov2-small.",
            subject=text,
        )
    return repository, revision


def find_pretrained(spec: BackboneSpec) -> HubWeights:
    """What the backbone's publisher has on the hub.

    Raises:
        WeightsError: There is nothing, or the hub cannot be reached.
    """
    if spec.hub is None:
        raise WeightsError(
            f"there are no pretrained weights of {spec.name}; use --weights random:SEED or a file.",
            subject=spec.name,
        )
    repository, name = spec.hub.repository, spec.hub.name
    without = (
        f"download {name} of {repository} on a machine with a network and use --weights FILE, or "
        f"try things out with --weights random:0"
    )
    # A cached copy is used without asking the hub.
    file = _cached_file(repository, name)
    if file is None:
        with asking_hub(repository, MAIN, f"the weights of {spec.name}", without):
            file = hf_hub_download(repository, name)
    return _cached(repository, Path(file), spec.family)


def is_pretrained_at_hand(spec: BackboneSpec) -> bool:
    """Whether the publisher's weights are in the cache."""
    return spec.hub is not None and _cached_file(spec.hub.repository, spec.hub.name) is not None


def _cached_file(repository: str, name: str) -> str | None:
    try:
        return hf_hub_download(repository, name, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def find_on_hub(text: str, spec: BackboneSpec) -> HubWeights:
    """The weights of any repository, for a backbone.

    Args:
        text: ``hf:REPOSITORY`` or ``hf:REPOSITORY@REVISION``.
        spec: The backbone they are for.

    Raises:
        UsageError: The text names no repository.
        WeightsError: There is no such repository, it has no weights or two, or it is out of reach.
    """
    cached = find_in_cache(text, spec)
    return cached or _download(*parse_hub(text), spec)


def find_in_cache(text: str, spec: BackboneSpec) -> HubWeights | None:
    """The same without asking the hub; None where the cache has not all of it.

    Raises:
        UsageError: The text names no repository.
    """
    repository, revision = parse_hub(text)
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    try:
        reference = folder / "refs" / revision
        commit = reference.read_text().strip() if reference.is_file() else revision
        snapshot = folder / "snapshots" / commit
        if _COMMIT_START.fullmatch(commit) and not snapshot.is_dir():
            # A label has the start of a commit's hash only.
            (snapshot,) = (folder / "snapshots").glob(f"{commit}*")
        if not _COMMIT.fullmatch(snapshot.name):
            return None
        files = replace(locate(snapshot, spec.family), name=repository)
    except (OSError, ValueError, EmcacheError):
        # Nothing there, or a part: the hub has the rest.
        return None
    return HubWeights(repository, files, snapshot.name)


def _download(repository: str, revision: str, spec: BackboneSpec) -> HubWeights:
    what = repository if revision == MAIN else f"{repository} at {revision}"
    without = (
        f"download {repository} on a machine with a network and use --weights FOLDER, or try "
        f"things out with --weights random:0"
    )
    with asking_hub(repository, revision, f"the weights of {what}", without):
        api = HfApi(endpoint=constants.ENDPOINT)
        listed = api.model_info(repository, revision=revision).siblings or []
        names = [item.rfilename for item in listed if "/" not in item.rfilename]
        chosen = choose(names, spec.family, f"the repository {what}")
        wanted = [name for name in (_CONFIG,) if name in names]
        for name in wanted:
            hf_hub_download(repository, name, revision=revision)
        file = Path(hf_hub_download(repository, chosen, revision=revision))
        for shard in read_index(file) if is_index(chosen) else ():
            hf_hub_download(repository, shard, revision=file.parent.name)
    return _cached(repository, file, spec.family)


def _cached(repository: str, file: Path, family: str) -> HubWeights:
    commit = file.parent.name
    files = replace(locate(file, family), name=repository)
    return HubWeights(repository, files, commit if _COMMIT.fullmatch(commit) else None)


@contextmanager
def asking_hub(repository: str, revision: str, what: str, without: str) -> Iterator[None]:
    """Turn what the hub's client raises into a sentence."""
    try:
        yield
    except EmcacheError:
        raise
    except GatedRepoError as error:
        raise WeightsError(
            f"the hub gives {repository} only to those who accepted its licence; accept it there "
            f"and log in with `hf auth login`, or {without}.",
            subject=repository,
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(
            f"the hub's repository {repository} has no revision {revision!r}; expected a branch, "
            f"a tag or a commit of it.",
            subject=repository,
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"the hub has no repository {repository}, or shows it only to some; check the name, "
            f"and log in with `hf auth login` if it is not public.",
            subject=repository,
        ) from error
    except Exception as error:
        raise WeightsError(
            f"{what} cannot be fetched from the hub ({type(error).__name__}); {without}.",
            subject=repository,
        ) from error


# What draws random weights, and so decides what a seed means.
_INITIALISERS = ("torch", "timm", "open_clip_torch")


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
    names = {} if is_named(text) else read_short_names(workspace)
    index = open_file_index(workspace)
    weights = find_weights(text, spec, index, names)
    index.save()
    return weights


def find_weights(
    text: str,
    spec: BackboneSpec,
    index: FileIndex,
    names: Mapping[str, ShortName] = MappingProxyType({}),
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
    if text == PRETRAINED:
        found = find_pretrained(spec)
        files = found.files.stamped()
        return Weights(text, files.sha256(index), files, revision=found.commit)
    if (seed := random_seed(text)) is not None:
        return Weights(text, _random_sha256(spec, seed, index), None, seed)
    if is_untrained(text) or (text == "random" and not is_there(text)):
        raise UsageError(
            f"{text!r} has no seed; expected random:SEED, as random:0, up to {LARGEST_SEED}.",
            subject=text,
        )
    if text.startswith(HUB):
        found = find_on_hub(text, spec)
        files = found.files.stamped()
        label = hub_label(found.repository, found.commit or MAIN)
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
    if text == PRETRAINED:
        return is_pretrained_at_hand(spec)
    if is_untrained(text):
        return True
    if text.startswith(HUB):
        return find_in_cache(text, spec) is not None
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
    label = short or file_label(files.name, sha256)
    _remember(index, label, path, sha256)
    return Weights(label, sha256, files)


def _remembered(
    text: str, spec: BackboneSpec, index: FileIndex, names: Mapping[str, ShortName]
) -> Weights:
    """Weights by the label that an output gave them: under a short name, or where they were."""
    is_file = is_file_label(text)
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
    start = hash_start(sha256)
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
