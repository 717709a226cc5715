"""Smaller feature sets from those that are there: no slice is read and no backbone runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from emcache.cache.encoding import TokenType, fit_basis
from emcache.cache.extract import Extraction, run_extraction
from emcache.cache.feature_jobs import job_of
from emcache.cache.feature_set import FeatureSet
from emcache.cache.plan import Job
from emcache.errors import StoreError, UsageError, suggest
from emcache.progress import Reporter
from emcache.storage.workspace import Workspace

TRAINING = "train"
"""Split whose slices a basis is fitted to."""


@dataclass(frozen=True, slots=True)
class _Source:
    feature_set: FeatureSet
    job: Job

    def training_tokens(self) -> Iterator[Float[np.ndarray, "row col channel"]]:
        """Of the slices that trainings learn from."""
        for position, item in enumerate(self.job.slices):
            if item.split == TRAINING:
                yield self.feature_set.tokens(position)


def convert(
    workspace: Workspace,
    names: Sequence[str],
    dtype: TokenType,
    components: int | None,
    reporter: Reporter,
) -> list[Extraction]:
    """Store the tokens of feature sets in fewer bytes, as feature sets of their own.

    Args:
        workspace: Whose cache they stand in.
        names: Of the feature sets. Principal components of several have one basis, which is fitted
            to the training slices of all.
        dtype: What is stored.
        components: Number of principal components; None for the backbone's own channels.
        reporter: Receives progress.

    Raises:
        UsageError: Nothing would become smaller.
        StoreError: No such feature set, one that was made smaller already or is the output of a
            block, several kinds for one basis, or no training slices to fit it to.
        EmcacheError: Its dataset, weights or adapter have gone.
    """
    if dtype == "float32" or (dtype == "float16" and components is None):
        raise UsageError(
            f"--dtype {dtype} makes nothing smaller than float16; expected --dtype int8, --pca N, "
            f"or both.",
            subject=dtype,
        )
    sources = [_find(workspace, name, reporter) for name in dict.fromkeys(names)]
    basis = None
    if components is not None:
        if len({source.job.recipe.sha256() for source in sources}) > 1:
            raise StoreError(
                f"{', '.join(names)} hold tokens of several kinds; principal components have one "
                f"basis: convert those of one backbone, layer and size together.",
                subject=tuple(names),
            )
        if not any(item.split == TRAINING for source in sources for item in source.job.slices):
            raise StoreError(
                f"{', '.join(names)} holds no training slices to fit principal components to; "
                f"choose the feature set of a whole dataset.",
                subject=tuple(names),
            )
        tokens = (grid for source in sources for grid in source.training_tokens())
        basis = fit_basis(tokens, components)
        reporter.say(f"{components} components hold {basis.explained:.4f} of the variance.")
    return [run_extraction(source.job.encoded(dtype, basis), reporter) for source in sources]


def _find(workspace: Workspace, name: str, reporter: Reporter) -> _Source:
    folder = workspace.cache / name
    if not folder.is_dir() or folder.parent != workspace.cache:
        known = [path.name for path in workspace.cache.glob("[!.]*") if path.is_dir()]
        raise StoreError(
            f"there is no feature set {name!r:.200}; {suggest(name, known)}expected a name that "
            f"`emcache cache list` shows.",
            subject=name,
        )
    found = FeatureSet.open(folder)
    if found.is_raw:
        raise StoreError(
            f"{name} is what the last blocks are trained on, which needs it as it is; remove it "
            f"with `emcache cache prune {name}` to have the space back.",
            subject=name,
        )
    if not found.encoding.is_plain:
        raise StoreError(
            f"{name} was made smaller already; convert the feature set that it was made of.",
            subject=name,
        )
    job = job_of(workspace, folder, reporter)
    if job.fingerprint != found.fingerprint:
        raise StoreError(
            f"the slices or weights of {name} are no longer those that it was made of; extract "
            f"them again.",
            subject=name,
        )
    return _Source(found, job)
