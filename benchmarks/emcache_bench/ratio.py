"""Ratios, and what they must reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from emcache.findings import Verdict


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio must reach."""

    bound: float
    at_least: bool
    """Whether the bound is the least or the most."""

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def reached_by(self, ratio: float) -> bool:
        """Whether the ratio is on the right side of the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound


LEAD = 6
"""By how many rounds one side of a target must lead before the verdict is settled.

Wald's sequential test of a sign: where seven of ten rounds are on one side, the other side leads by
six first in one run of 160, ``1 / (1 + (7 / 3) ** 6)``; where nine of ten are, in one of 500,000.
"""


def is_settled(asked: Iterable[tuple[Sequence[float], Target | None]]) -> bool:
    """Whether more rounds would hardly change a verdict.

    Args:
        asked: The ratio of every round so far and its target, for each verdict.
    """
    return all(
        target is None or abs(sum(1 if target.reached_by(r) else -1 for r in ratios)) >= LEAD
        for ratios, target in asked
    )


@dataclass(frozen=True, slots=True)
class Measurement:
    """One ratio, measured."""

    name: str
    question: str
    """What is divided by what."""
    ratio: float
    """Median over the rounds, or what the least times give."""
    low: float
    """Lowest of a round."""
    high: float
    """Highest of a round."""
    target: Target | None
    """None for what only informs."""
    device: str = "cpu"
    unit: str = "ratio"
    """``ratio``, ``s`` or ``records/s``."""
    times: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Raw seconds of each round, by what was timed."""
    note: str = ""
    """Why a verdict is not what the ratio alone would say."""
    sound: bool = True
    """False where the two sides did not do the same work; it fails then, whatever the ratio."""

    @property
    def verdict(self) -> Verdict:
        """Whether the target was reached."""
        if not self.sound:
            return Verdict.FAIL
        if self.target is None:
            return Verdict.NA
        return Verdict.PASS if self.target.reached_by(self.ratio) else Verdict.FAIL

    def as_row(self) -> dict[str, Any]:
        """For a table or JSON: ``name``, ``ratio``, ``target``, ``verdict`` and others."""
        return {
            "name": self.name,
            "ratio": self.ratio,
            "target": None if self.target is None else str(self.target),
            "verdict": str(self.verdict),
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "device": self.device,
            "question": self.question,
            "note": self.note,
            "times": [{"what": what, "seconds": list(seconds)} for what, seconds in self.times],
        }


def of_rounds(
    name: str,
    question: str,
    ratios: Sequence[float],
    target: Target | None,
    times: dict[str, list[float]],
    *,
    device: str = "cpu",
    note: str = "",
    sound: bool = True,
    ratio: float | None = None,
) -> Measurement:
    """A measurement from the ratio of every round.

    Args:
        name: Short name; that of a GPU is added.
        question: What is divided by what.
        ratios: One for each round.
        target: What their median must reach.
        times: Raw seconds, by what was timed.
        device: Where.
        note: See :attr:`Measurement.note`.
        sound: See :attr:`Measurement.sound`.
        ratio: What counts in place of the median.
    """
    return Measurement(
        name if device == "cpu" else f"{name}-{device}",
        question,
        median(ratios) if ratio is None else ratio,
        min(ratios),
        max(ratios),
        target,
        device,
        times=tuple((what, tuple(seconds)) for what, seconds in times.items()),
        note=note,
        sound=sound,
    )
