"""What an audit finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from emcache.findings import Verdict


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a dataset."""

    name: str
    """``pairing``, ``duplicates``, ``leakage`` and so on."""
    verdict: Verdict
    message: str
    """What was found, and what to do where there is something to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """What the pixels say of which mask belongs to which slice."""

    own_mask_wins: float | None = None
    """Share of the examined slices whose own mask fits best in both halves of the picture."""
    assignment: Mapping[str, str] = field(default_factory=dict)
    """For each image that both halves agree on the mask that fits best, as paths below the root."""
    displaced: Mapping[str, str] = field(default_factory=dict)
    """The part of the assignment that is another mask than the declared one, clearly so."""
    undecided: Sequence[str] = ()
    """Images that the halves do not agree on, or not clearly enough."""
    doubtful: Sequence[str] = ()
    """Images whose own mask fits no better than those of other slices."""
    evidence: float | None = None
    """By how many standard errors the best of the known wrong orders fits better than the declared
    one; negative where the declared one fits better."""
    cause: str | None = None
    """Why the best pairing is another one: ``string order``, ``reversed`` and so on."""
    orientation: str
    """How the masks had to be turned to fit: ``as they are``, ``flipped left-right`` ..."""
    channel: str = ""
    """The channel of the image with the clearest scores."""
    examined: int
    """Slices that could be examined."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Every check of one dataset."""

    dataset: str
    checks: tuple[Check, ...]
    pairing: Pairing

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of all checks."""
        return Verdict.worst([check.verdict for check in self.checks])

    def as_dict(self) -> dict[str, Any]:
        """JSON values, as the command prints them."""
        return {
            "dataset": self.dataset,
            "verdict": str(self.verdict),
            "checks": [{**asdict(check), "verdict": str(check.verdict)} for check in self.checks],
            "pairing": asdict(self.pairing),
        }
