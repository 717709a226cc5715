"""A linear probe: how well the sets of two samples can be told apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported where they are first used
from jaxtyping import Float64, Int64

from emcache.gap.frechet import Sample
from emcache.gap.logistic import fit_many

FEWEST_BLOCKS = 4
"""On each side; with fewer nothing can be told."""
FOLDS = 5
"""Of the cross-validation, where there are as many blocks."""

_PERMUTATIONS = 199
# Numbers that are held for the models of one go, at most.
_AT_ONCE = 1 << 23


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

    Vectors are scaled by one number, the training slices' standard deviation, so that the result
    does not depend on the axes; the penalty is that of scikit-learn's default (C = 1), classes
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
    rng = np.random.default_rng(seed)
    count = _PERMUTATIONS if permutations is None else permutations
    labelings = [owners, *(rng.permutation(owners) for _ in range(count))]
    # A rotation into the slices' own space: the same models from far fewer numbers.
    data = _own_space(data)
    step = max(1, _AT_ONCE // (len(data) * FOLDS))
    scored = [
        _cross_validated(data, blocks, labelings[start : start + step])
        for start in range(0, len(labelings), step)
    ]
    labels, scores = (np.concatenate(parts, axis=1) for parts in zip(*scored, strict=True))
    reached = _auroc(labels, scores)
    right = (scores[:, 0] > 0) == labels[:, 0]
    accuracy = float(np.mean([right[labels[:, 0] == side].mean() for side in (False, True)]))
    chance = int((reached[1:] >= reached[0] - 1e-12).sum())
    return Probe(accuracy, float(reached[0]), (1 + chance) / (1 + count))


def _own_space(data: Float64[np.ndarray, "slice channel"]) -> Float64[np.ndarray, "slice axis"]:
    centred = data - data.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    own: Float64[np.ndarray, "slice axis"] = left * values
    return own


def _cross_validated(
    data: Float64[np.ndarray, "slice axis"],
    blocks: list[Int64[np.ndarray, _]],
    labelings: list[Int64[np.ndarray, " block"]],
) -> tuple[np.ndarray, Float64[np.ndarray, "slice labeling"]]:
    """For each labeling of the blocks, labels of all slices, and decision values out of fold."""
    block_of = np.empty(len(data), np.int64)
    for number, block in enumerate(blocks):
        block_of[block] = number
    labels = np.stack([owners[block_of] == 1 for owners in labelings], axis=1)
    folds = np.stack([fold_of_blocks(owners)[block_of] for owners in labelings], axis=1)
    models = [(number, fold) for number in range(len(labelings)) for fold in range(FOLDS)]
    models = [(number, fold) for number, fold in models if (folds[:, number] == fold).any()]
    columns, of_fold = (np.array(part) for part in zip(*models, strict=True))
    held = folds[:, columns] == of_fold
    wanted = labels[:, columns]
    decision = fit_many(
        data, wanted.astype(np.float64), _weights(wanted, held), _ridges(data, held)
    )
    scores = np.empty(labels.shape)
    for model, number in enumerate(columns):
        scores[held[:, model], number] = decision[held[:, model], model]
    return labels, scores


def _weights(labels: np.ndarray, held: np.ndarray) -> Float64[np.ndarray, "slice model"]:
    """Of the slices that a model learns from: both sides weigh the same."""
    weights = np.zeros(labels.shape)
    for side in (False, True):
        mine = (labels == side) & ~held
        weights += mine * ((~held).sum(axis=0) / (2 * mine.sum(axis=0)))
    return weights


def _ridges(
    data: Float64[np.ndarray, "slice axis"], held: np.ndarray
) -> Float64[np.ndarray, " model"]:
    """Variance of the numbers that a model learns from.

    Penalising the coefficients of vectors divided by their deviation is the same as penalising
    those of the vectors themselves by the variance.
    """
    seen = (~held).astype(np.float64)
    count = seen.sum(axis=0)
    squares = ((data**2).sum(axis=1) @ seen) / count
    means = ((data.T @ seen / count) ** 2).sum(axis=0)
    variance = np.maximum(squares - means, 0) / data.shape[1]
    return np.where(variance > 0, variance, 1.0)


def _auroc(labels: np.ndarray, scores: Float64[np.ndarray, "slice labeling"]) -> np.ndarray:
    """Of each labeling: the share of pairs that are in the right order (Mann and Whitney 1947)."""
    ranks = scipy.stats.rankdata(scores, axis=0)
    positive = labels.sum(axis=0)
    above = (ranks * labels).sum(axis=0) - positive * (positive + 1) / 2
    found: np.ndarray = above / (positive * (len(labels) - positive))
    return found


def fold_of_blocks(owners: Int64[np.ndarray, " block"]) -> Int64[np.ndarray, " block"]:
    """Deal each side's blocks out to folds, so that every fold has blocks of both."""
    number = min(FOLDS, int(np.bincount(owners).min()))
    folds = np.empty(len(owners), np.int64)
    for side in (0, 1):
        mine = np.flatnonzero(owners == side)
        folds[mine] = np.arange(len(mine)) * number // len(mine)
    return folds
