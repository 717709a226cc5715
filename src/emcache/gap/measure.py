"""Everything that is measured between two sets of vectors, as one row; the kernel distance."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from emcache.errors import UsageError
from emcache.gap.frechet import (
    Sample,
    at_infinity,
    effective_rank,
    frechet_distance,
    jackknife_interval,
    yardstick,
)

FEWEST_BLOCKS = 4
"""On each side; with fewer nothing can be told."""
FOLDS = 5
"""Of the cross-validation, where there are as many blocks."""

_PERMUTATIONS = 199


class Probe(NamedTuple):
    """What the probe came to."""

    accuracy: float
    """Balanced: the mean over both sides of the share of slices that were classified rightly."""
    auroc: float
    p_value: float
    """Share of permutations of the blocks' labels with an AUROC at least as high."""


def probe(
    one: Sample, other: Sample, seed: int = 0, permutations: int | None = None
) -> Probe | None:
    """Logistic regression for the set, cross-validated by blocks of neighbouring slices.

    Vectors are centred and scaled by one number, the training slices' standard deviation, so that
    the result does not depend on the axes; the penalty is scikit-learn's default (C = 1), classes
    weigh the same. Every slice is scored by a model that has not seen its block.

    Args:
        one: One set.
        other: The other.
        seed: Of the permutations.
        permutations: How many, 199 if not given; the p-value is one in one more at least.

    Returns:
        None where a side has fewer than :data:`FEWEST_BLOCKS` blocks.
    """
    cuts = [side.blocks() for side in (one, other)]
    if min(map(len, cuts)) < FEWEST_BLOCKS:
        return None
    data = np.concatenate([one.vectors, other.vectors]).astype(np.float64)
    blocks = [*cuts[0], *(block + len(one) for block in cuts[1])]
    owners = np.array([0] * len(cuts[0]) + [1] * len(cuts[1]))
    # A rotation into the slices' own space: the same model from far fewer numbers.
    data = _own_space(data)
    accuracy, auroc = _cross_validated(data, blocks, owners)
    rng = np.random.default_rng(seed)
    count = _PERMUTATIONS if permutations is None else permutations
    chance = [_cross_validated(data, blocks, rng.permutation(owners))[1] for _ in range(count)]
    reached = sum(value >= auroc - 1e-12 for value in chance)
    return Probe(accuracy, auroc, (1 + reached) / (1 + count))


def _own_space(data: Float64[np.ndarray, "slice channel"]) -> Float64[np.ndarray, "slice axis"]:
    centred = data - data.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    own: Float64[np.ndarray, "slice axis"] = left * values
    return own


def _cross_validated(
    data: Float64[np.ndarray, "slice axis"],
    blocks: list[Int64[np.ndarray, _]],
    owners: Int64[np.ndarray, " block"],
) -> tuple[float, float]:
    """Balanced accuracy and AUROC over all slices, each scored out of its fold."""
    folds = fold_of_blocks(owners)
    labels = np.empty(len(data), np.int64)
    fold_of = np.empty(len(data), np.int64)
    for block, owner, fold in zip(blocks, owners, folds, strict=True):
        labels[block], fold_of[block] = owner, fold
    scores = np.empty(len(data))
    for fold in range(folds.max() + 1):
        held = fold_of == fold
        scores[held] = fit_and_score(data[~held], labels[~held], data[held])
    right = (scores > 0) == (labels == 1)
    accuracy = float(np.mean([right[labels == label].mean() for label in (0, 1)]))
    return accuracy, float(roc_auc_score(labels, scores))


def fold_of_blocks(owners: Int64[np.ndarray, " block"]) -> Int64[np.ndarray, " block"]:
    """Deal each side's blocks out to folds, so that every fold has blocks of both."""
    number = min(FOLDS, int(np.bincount(owners).min()))
    folds = np.empty(len(owners), np.int64)
    for side in (0, 1):
        mine = np.flatnonzero(owners == side)
        folds[mine] = np.arange(len(mine)) * number // len(mine)
    return folds


def fit_and_score(
    train: Float64[np.ndarray, "train channel"],
    labels: Int64[np.ndarray, " train"],
    test: Float64[np.ndarray, "test channel"],
) -> Float64[np.ndarray, " test"]:
    """Decision values of the test vectors; above 0 is label 1."""
    mean = train.mean(axis=0)
    scale = (train - mean).std() or 1.0
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    with warnings.catch_warnings():
        # What it has come to after a thousand steps is judged by its scores all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((train - mean) / scale, labels)
    scores: Float64[np.ndarray, " test"] = model.decision_function((test - mean) / scale)
    return scores


KERNEL = "polynomial (x.y / D + 1)^3"
"""The kernel of the KID (Binkowski et al., ICLR 2018)."""


def kernel_distance(one: Sample, other: Sample, neighbours: int = 1) -> float | None:
    """Unbiased estimate of the squared MMD (Gretton et al., JMLR 13:723, 2012).

    Pairs of one set that are the same slice or up to ``neighbours`` apart are left out: they are
    alike because they touch, and would make every stack look far from every other. The estimate
    can be below 0.

    Args:
        one: One set.
        other: The other.
        neighbours: How far apart slices count as neighbours.

    Returns:
        None where a set has no pair of slices further apart.
    """
    within = 0.0
    sides = [np.asarray(side.vectors, dtype=np.float64) for side in (one, other)]
    for sample, side in zip((one, other), sides, strict=True):
        apart = np.abs(sample.owners[:, None] - sample.owners[None, :]) > neighbours
        if not apart.any():
            return None
        within += float(_kernel(side, side)[apart].mean())
    return within - 2 * float(_kernel(*sides).mean())


def _kernel(
    x: Float64[np.ndarray, "n channel"], y: Float64[np.ndarray, "m channel"]
) -> Float64[np.ndarray, "n m"]:
    values: Float64[np.ndarray, "n m"] = (x @ y.T / x.shape[1] + 1) ** 3
    return values


@dataclass(frozen=True, slots=True)
class Gap:
    """Distances between two sets, with what they must be read beside."""

    n_a: int
    """Vectors of the first set."""
    n_b: int
    """Vectors of the second."""
    dim: int
    """Numbers in a vector, D."""
    effective_rank: float
    """Of the set with the lower one; see :func:`emcache.gap.frechet.effective_rank`."""
    frechet: float
    """Squared Frechet distance, exact for these vectors."""
    frechet_se: float | None
    """Jackknife standard error over blocks of slices; None where there are too few."""
    frechet_low: float | None
    """Lower end of the 95 % interval."""
    frechet_high: float | None
    """Upper end."""
    n_yardstick: int | None
    """Vectors on each side of the next three, which therefore compare with one another."""
    frechet_within_a: float | None
    """Between contiguous halves of the first set."""
    frechet_within_b: float | None
    """Between contiguous halves of the second."""
    frechet_at_n: float | None
    """Between contiguous pieces of the two sets."""
    frechet_infinity: float | None
    """Extrapolated to infinitely many vectors; None where that cannot be estimated."""
    kernel: float | None
    """Squared MMD, neighbouring slices left out."""
    kernel_name: str
    """Its kernel."""
    probe_accuracy: float | None
    """Balanced accuracy of the linear probe; None where there are too few blocks to tell."""
    probe_auroc: float | None
    probe_p_value: float | None
    """Share of permutations of blocks with an AUROC at least as high."""

    def as_dict(self) -> dict[str, object]:
        """Columns of a row."""
        return asdict(self)


def measure(one: Sample, other: Sample, names: tuple[str, str]) -> Gap:
    """Measure two sets of vectors of one backbone.

    Raises:
        UsageError: A set has fewer than two vectors.
    """
    for side, name in zip((one, other), names, strict=True):
        if len(side) < 2:
            raise UsageError(
                f"{name} has {len(side)} of the vectors to compare; a distance needs at least two "
                f"on each side: choose a larger selection.",
                subject=name,
            )
    interval = jackknife_interval(one, other)
    yardsticks = yardstick(one, other)
    probed = probe(one, other)
    return Gap(
        n_a=len(one),
        n_b=len(other),
        dim=one.vectors.shape[1],
        effective_rank=min(effective_rank(side.vectors) for side in (one, other)),
        frechet=frechet_distance(one.vectors, other.vectors),
        frechet_se=None if interval is None else interval.standard_error,
        frechet_low=None if interval is None else interval.low,
        frechet_high=None if interval is None else interval.high,
        n_yardstick=None if yardsticks is None else yardsticks.vectors,
        frechet_within_a=None if yardsticks is None else yardsticks.within_one,
        frechet_within_b=None if yardsticks is None else yardsticks.within_other,
        frechet_at_n=None if yardsticks is None else yardsticks.between,
        frechet_infinity=at_infinity(one, other),
        kernel=kernel_distance(one, other),
        kernel_name=KERNEL,
        probe_accuracy=None if probed is None else probed.accuracy,
        probe_auroc=None if probed is None else probed.auroc,
        probe_p_value=None if probed is None else probed.p_value,
    )
