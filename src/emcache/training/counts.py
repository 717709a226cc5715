"""Pixel counts, and the scores that follow from them.

Scores are ratios of totals over a data set; keeping counts for every slice lets per-source, macro
and pooled scores be computed later and never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Bool, Integer, UInt8
from torch import Tensor

from emcache.data.classes import IGNORED

_EPSILON = 1e-7


@dataclass(frozen=True, slots=True)
class Counts:
    """Pixels of one class in one slice, predicted against true."""

    tp: int
    """Of the class in both."""
    fp: int
    """Predicted as the class, truly another."""
    fn: int
    """Truly of the class, predicted as another."""
    tn: int
    """Of another class in both."""

    @classmethod
    def of(
        cls,
        predicted: Integer[Tensor, "row col"],
        true: UInt8[Tensor, "row col"],
    ) -> Counts:
        """Count two label images where the true one is not :data:`~emcache.data.classes.IGNORED`.

        Every label above 0 is foreground.
        """
        return cls._of(predicted > 0, true > 0, true != IGNORED)

    @classmethod
    def of_class(
        cls,
        predicted: Integer[Tensor, "row col"],
        true: UInt8[Tensor, "row col"],
        label: int,
    ) -> Counts:
        """As :meth:`of`, of one class against all others."""
        return cls._of(predicted == label, true == label, true != IGNORED)

    @classmethod
    def _of(
        cls, p: Bool[Tensor, "row col"], t: Bool[Tensor, "row col"], seen: Bool[Tensor, "row col"]
    ) -> Counts:
        p, t = p & seen, t & seen
        both = int((p & t).sum())
        n_p, n_t, n = int(p.sum()), int(t.sum()), int(seen.sum())
        return cls(both, n_p - both, n_t - both, n - n_p - n_t + both)

    @staticmethod
    def total(counts: Iterable[Counts]) -> Counts:
        """Sum over slices."""
        tp = fp = fn = tn = 0
        for item in counts:
            tp, fp, fn, tn = tp + item.tp, fp + item.fp, fn + item.fn, tn + item.tn
        return Counts(tp, fp, fn, tn)

    @property
    def iou(self) -> float:
        """Intersection over union: ``|p & m| / (|p | m| + 1e-7)``."""
        return self.tp / (self.tp + self.fp + self.fn + _EPSILON)
