"""Linear probe: can a line tell the two sets of slices apart, and could it by chance?"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from emcache.gap.blocks import Sample

FEWEST_BLOCKS = 4
"""On each side; with fewer nothing can be told."""
FOLDS = 5
"""Of the cross-validation, where there are as many blocks."""

_PERMUTATIONS = 199


class Probe(NamedTuple):
    """What the probe came to."""

    accuracy: float
    """Balanced: the mean of both sides' shares of slices that were told right."""
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
    told = (scores > 0) == (labels == 1)
    accuracy = float(np.mean([told[labels == label].mean() for label in (0, 1)]))
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
