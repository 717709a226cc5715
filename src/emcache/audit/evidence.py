"""Which assignment of masks to images the scores speak for, and how loudly.

Scores are centred by rows and columns: a mask whose outline is strong everywhere and an image that
is busy everywhere say nothing about each other. A channel may speak in either polarity (membranes
are dark inside, cells are bright), so each enters twice. An assignment's statistic is its sum of
centred scores over the standard deviation that random assignments have of it, which for a centred
matrix C of n slices is sqrt(sum(C^2) / (n - 1)) with mean 0 (Hoeffding 1951).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import linear_sum_assignment

from emcache.audit.affinity import CHANNELS

_PERMUTATIONS = 1999
_SHUFFLES = 40
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best assignment of one orientation of the masks."""

    assignment: Int64[np.ndarray, " image"]
    """For each image the mask of the best assignment."""
    statistic: float
    """Of that assignment, in the variant where it is largest."""
    variant: int
    """Which channel, and behind all channels their opposites."""

    @property
    def channel(self) -> str:
        """The variant in words."""
        polarity = "high" if self.variant < len(CHANNELS) else "low"
        return f"{CHANNELS[self.variant % len(CHANNELS)]}, {polarity}"


def best_assignment(scores: Float64[np.ndarray, "channel image mask"]) -> Optimum:
    """Find the assignment that the scores speak for most loudly.

    Args:
        scores: From :meth:`emcache.audit.affinity.Scratch.affinity`.
    """
    variants = _variants(scores)
    optima = [_optimum(variant) for variant in variants]
    best = max(range(len(optima)), key=lambda place: optima[place][1])
    return Optimum(*optima[best], best)


def centred(
    scores: Float64[np.ndarray, "channel image mask"], variant: int
) -> Float64[np.ndarray, "image mask"]:
    """One variant's scores, centred, in standard deviations of a random pairing's sum."""
    chosen: Float64[np.ndarray, "image mask"] = _variants(scores)[variant]
    return chosen


def strength(
    statistic: float,
    scores: Float64[np.ndarray, "channel image mask"],
    rng: np.random.Generator,
) -> float:
    """How far an optimum stands above that of shuffled scores, in their standard deviations.

    The optimum is the same however the masks are ordered, so what is shuffled is the scores
    themselves.
    """
    channels = _normalised(scores)
    best = []
    for _ in range(_SHUFFLES):
        shuffled = rng.permuted(channels.reshape(len(channels), -1), axis=1)
        variants = _variants(shuffled.reshape(channels.shape))
        best.append(max(_optimum(variant)[1] for variant in variants))
    return (statistic - float(np.mean(best))) / max(float(np.std(best)), _TIE)


def p_value(scores: Float64[np.ndarray, "channel image mask"], rng: np.random.Generator) -> float:
    """Share of random pairings that fit as well as the declared one (mask i to image i).

    Each pairing, the declared one too, is judged by the channel and polarity that suit it best.
    """
    variants = _variants(scores)
    count = variants.shape[1]
    images = np.arange(count)
    declared = variants[:, images, images].sum(axis=1).max()
    masks = rng.permuted(np.tile(images, (_PERMUTATIONS, 1)), axis=1)
    best = np.full(_PERMUTATIONS, -np.inf)
    for variant in variants:
        best = np.maximum(best, variant[images, masks].sum(axis=1))
    return float((1 + (best >= declared - _TIE).sum()) / (1 + _PERMUTATIONS))


def _variants(
    scores: Float64[np.ndarray, "channel image mask"],
) -> Float64[np.ndarray, "variant image mask"]:
    normal = _normalised(scores)
    return np.concatenate([normal, -normal])


def _normalised(
    scores: Float64[np.ndarray, "channel image mask"],
) -> Float64[np.ndarray, "channel image mask"]:
    """Centred by rows and columns, and scaled so that random assignments have variance 1."""
    centred = (
        scores
        - scores.mean(axis=2, keepdims=True)
        - scores.mean(axis=1, keepdims=True)
        + scores.mean(axis=(1, 2), keepdims=True)
    )
    spread = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True) / (scores.shape[1] - 1))
    normal: Float64[np.ndarray, "channel image mask"] = centred / np.maximum(spread, _TIE)
    return normal


def _optimum(
    variant: Float64[np.ndarray, "image mask"],
) -> tuple[Int64[np.ndarray, " image"], float]:
    images, masks = linear_sum_assignment(variant, maximize=True)
    return masks, float(variant[images, masks].sum())
