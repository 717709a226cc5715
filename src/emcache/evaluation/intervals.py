"""How sure a score or a difference of two is: over seeds, and over blocks of neighbouring slices.

Seeds say what another training would score on the same slices, and slices what the same trainings
would score on others. Slices of a stack are alike where they lie side by side, so they are left out
block by block (the delete-a-group jackknife, Kott, J. Official Statistics 17:521, 2001), and the
two variances add up. Blocks that are shorter than what neighbours have in common make the interval
too narrow, so there are few and long ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Integer
from scipy.stats import t as student

BLOCKS = 5
"""Blocks that a stack of test slices is cut into."""
FEWEST_SLICES = 2 * BLOCKS
"""With fewer slices there is no interval over blocks."""

_CONFIDENCE = 0.95

SliceCounts = Integer[np.ndarray, "seed slice 3"]
"""True positives, false positives and false negatives of each run and slice, in stack order."""


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float
    p_value: float
    """Of a true value of 0, two-sided."""


def iou(counts: SliceCounts) -> Float64[np.ndarray, " seed"]:
    """Foreground IoU of each run on the totals of all slices."""
    totals = counts.sum(axis=1, dtype=np.float64)
    scores: Float64[np.ndarray, " seed"] = totals[:, 0] / (totals.sum(axis=1) + 1e-7)
    return scores


def over_seeds(counts: SliceCounts, less: SliceCounts | None = None) -> Interval | None:
    """Mean IoU over runs, or its difference to that of other runs of the same seeds.

    Args:
        counts: Of the runs.
        less: Of other runs, seed by seed, on the same slices.

    Returns:
        None with fewer than two seeds.
    """
    if len(counts) < 2:
        return None
    values = _values(counts, less)
    variance = float(values.var(ddof=1)) / len(values)
    return _interval(float(values.mean()), [(variance, len(values) - 1)])


def over_seeds_and_blocks(counts: SliceCounts, less: SliceCounts | None = None) -> Interval | None:
    """The same, for other slices of the stack too.

    Student's t has the degrees of freedom of Satterthwaite (Biometrics 2:110, 1946). More of these
    could make it narrower than over seeds alone, which it never is.

    Returns:
        None with fewer than two seeds or :data:`FEWEST_SLICES` slices.
    """
    seeds, slices = counts.shape[:2]
    if seeds < 2 or slices < FEWEST_SLICES:
        return None
    values = _values(counts, less)
    left_out = np.array(
        [_values(counts, less, keep).mean() for keep in _without_each_block(slices)]
    )
    spread = float(((left_out - left_out.mean()) ** 2).sum())
    of_seeds = float(values.var(ddof=1)) / seeds, seeds - 1
    of_blocks = (BLOCKS - 1) / BLOCKS * spread, BLOCKS - 1
    alone = _interval(float(values.mean()), [of_seeds])
    whole = _interval(float(values.mean()), [of_seeds, of_blocks])
    return max(alone, whole, key=lambda interval: interval.high)


def _values(
    counts: SliceCounts,
    less: SliceCounts | None,
    keep: Bool[np.ndarray, " slice"] | slice = slice(None),
) -> Float64[np.ndarray, " seed"]:
    own = iou(counts[:, keep])
    return own if less is None else own - iou(less[:, keep])


def _without_each_block(slices: int) -> list[Bool[np.ndarray, " slice"]]:
    blocks = np.array_split(np.arange(slices), BLOCKS)
    return [~np.isin(np.arange(slices), block) for block in blocks]


def _interval(value: float, parts: Sequence[tuple[float, int]]) -> Interval:
    """Of a value whose variance is a sum of parts, each with its degrees of freedom."""
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return Interval(value, value, value, float(value == 0))
    error = variance**0.5
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    reach = float(student.ppf(0.5 + _CONFIDENCE / 2, freedom)) * error
    p_value = 2 * float(student.sf(abs(value) / error, freedom))
    return Interval(value, value - reach, value + reach, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold for all of several comparisons (Holm, Scand. J. Statist. 6:65, 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted
