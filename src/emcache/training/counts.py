"""Pixel counts, and the scores that follow from them.

Scores are ratios of totals over a data set; keeping counts for every slice lets per-source, macro
and pooled scores be computed later and never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Integer, UInt8
from torch import Tensor

from emcache.data.classes import FOREGROUND, IGNORED
from emcache.training.protocol import Protocol

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


STANDSTILL_EPOCHS = 5
"""Epochs after which it is known whether the loss moves. The first one does not count: the head
may come to its one answer within it."""

_MOST_VALIDATION = 0.002
# Steps hold other slices in each epoch, and the last one fewer, so this loss moves on its own.
_MOST_TRAINING = 0.02


def stands_still(losses: Sequence[tuple[float, float]]) -> bool:
    """Whether neither loss moved from the second epoch to the last.

    Args:
        losses: Training and validation loss of each epoch so far, of two at least.
    """
    training, validation = zip(*losses[1:], strict=True)
    return _spread(training) <= _MOST_TRAINING and _spread(validation) <= _MOST_VALIDATION


def advice(losses: Sequence[tuple[float, float]], protocol: Protocol) -> str:
    """What to say of a loss that does not move: the figures, and what to try."""
    training, validation = losses[-1]
    rate = protocol.learning_rate
    other = "linear" if protocol.head == "deconv" else "deconv"
    return (
        f"the loss has not moved from epoch 2 to epoch {len(losses)} (training {training:.4f}, "
        f"validation {validation:.4f}), so nothing was learned there; try a smaller or a larger "
        f"learning rate (--learning-rate {rate / 10:g} or {rate * 10:g}; now {rate:g}) or --head "
        f"{other}, and look at emcache dataset audit."
    )


def _spread(losses: Sequence[float]) -> float:
    """Largest less smallest, as a share of the largest."""
    return (max(losses) - min(losses)) / max(losses) if max(losses) > 0 else 0.0


def nothing_learned(
    rows: Iterable[Mapping[str, Any]], losses: Sequence[tuple[float, float]]
) -> str | None:
    """Why a run has learned nothing, or None.

    Args:
        rows: Of ``slice_metrics.parquet``: the test slices of every dataset that it was trained on.
        losses: Training and validation loss of each epoch.

    Returns:
        What its predictions have in common, where that holds on each of its datasets; or that its
        loss did not move. A run that fails on one of two datasets has learned something.
    """
    totals: dict[str, list[Counts]] = {}
    for row in rows:
        if row["class"] == FOREGROUND:
            counts = Counts(row["tp"], row["fp"], row["fn"], row["tn"])
            totals.setdefault(row["eval_on"], []).append(counts)
    reasons = {name: constant_prediction(Counts.total(each)) for name, each in totals.items()}
    found = [reason for reason in reasons.values() if reason is not None]
    if reasons and len(found) == len(reasons):
        return (
            found[0]
            if len(set(found)) == 1
            else "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        )
    if len(losses) >= STANDSTILL_EPOCHS and stands_still(losses):
        return f"its loss did not move from epoch 2 to epoch {len(losses)}"
    return None


def constant_prediction(counts: Counts) -> str | None:
    """Why predictions are no better than one answer for every pixel, or None.

    Judged is the rarer of foreground and background. Calling every pixel so has an IoU of its share
    of the pixels, calling none so has 0; the bar is the better of the two. Of the commoner one even
    good predictions can have an IoU below its share.

    Args:
        counts: Pixels of all test slices of a dataset.
    """
    true, predicted = counts.tp + counts.fn, counts.tp + counts.fp
    pixels = true + counts.fp + counts.tn
    rare, name = counts, "foreground"
    if 2 * true > pixels:
        rare, name = Counts(counts.tn, counts.fn, counts.fp, counts.tp), "background"
    if not true or true == pixels:
        # Masks of one class cannot tell.
        return None
    if not predicted:
        return "it predicts no foreground"
    if predicted == pixels:
        return "it predicts nothing but foreground"
    if rare.iou <= (rare.tp + rare.fn) / pixels:
        return f"its IoU of the {name} is no higher than that of calling every pixel {name}"
    return None
