"""Pixel counts, and the scores that follow from them.

Scores are ratios of totals over a data set; keeping counts for every slice lets per-source, macro
and pooled scores be computed later and never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Integer, UInt8
from torch import Tensor

_EPSILON = 1e-7


@dataclass(frozen=True, slots=True)
class Counts:
    """Foreground pixels of one slice, predicted against true."""

    tp: int
    """Foreground in both."""
    fp: int
    """Predicted foreground, true background."""
    fn: int
    """Predicted background, true foreground."""
    tn: int
    """Background in both."""

    @classmethod
    def of(
        cls,
        predicted: Integer[Tensor, "row col"],
        true: UInt8[Tensor, "row col"],
    ) -> Counts:
        """Count two label images; every label above 0 is foreground."""
        p, t = predicted > 0, true > 0
        both = int((p & t).sum())
        n_p, n_t = int(p.sum()), int(t.sum())
        return cls(both, n_p - both, n_t - both, p.numel() - n_p - n_t + both)

    @staticmethod
    def total(counts: Iterable[Counts]) -> Counts:
        """Sum over slices."""
        tp = fp = fn = tn = 0
        for item in counts:
            tp, fp, fn, tn = tp + item.tp, fp + item.fp, fn + item.fn, tn + item.tn
        return Counts(tp, fp, fn, tn)

    @property
    def iou(self) -> float:
        """Foreground intersection over union: ``|p & m| / (|p | m| + 1e-7)``."""
        return self.tp / (self.tp + self.fp + self.fn + _EPSILON)
