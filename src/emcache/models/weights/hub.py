"""Weights from the model hub, or from the copies that its client keeps.

What the cache holds is used without asking the hub. A repository's commit is part of the label,
since what a branch stands for changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
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
from emcache.models.backbones.registry import BackboneSpec
from emcache.models.weights.files import WeightsFiles, choose, is_index, locate, read_index
from emcache.models.weights.labels import HUB

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
    try:
        # A cached copy is used without asking the hub.
        file = hf_hub_download(repository, name, local_files_only=True)
    except LocalEntryNotFoundError:
        with _asking(repository, MAIN, f"the weights of {spec.name}", without):
            file = hf_hub_download(repository, name)
    return _cached(repository, Path(file), spec.family)


def is_pretrained_at_hand(spec: BackboneSpec) -> bool:
    """Whether the publisher's weights are in the cache."""
    if spec.hub is None:
        return False
    try:
        hf_hub_download(spec.hub.repository, spec.hub.name, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


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
    with _asking(repository, revision, f"the weights of {what}", without):
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
def _asking(repository: str, revision: str, what: str, without: str) -> Iterator[None]:
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
