"""The verdict on a pairing: is every mask where its slice is?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from emcache.audit.affinity import AS_THEY_ARE
from emcache.audit.causes import likely_cause
from emcache.audit.evidence import Optimum, best_assignment, centred, p_value, strength
from emcache.audit.findings import Check, Pairing, Verdict

FEWEST = 5
"""Fewer slices than this are never judged."""

_CLEAR_P = 0.01
_CLEAR_SHARE = 0.8
_LOUD = 3.5
_CLEARER = 1.15
_SEED = 0
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Candidates:
    """The slices that are examined, in the order of the declared pairing."""

    images: Sequence[str]
    """Files, as paths below the root."""
    masks: Sequence[str]
    """Files declared for them."""
    mask_sha256s: Sequence[str]
    """Of the masks' pixels: the same mask under two names is one."""
    note: str = ""
    """What was left out, and why; a sentence or nothing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a pairing, and what it rests on."""

    check: Check
    pairing: Pairing
    scores: Float64[np.ndarray, "image mask"] | None
    """Centred scores of the channel that spoke most clearly, high where image and mask fit; None
    where nothing could be examined."""


def judge_pairing(
    candidates: Candidates,
    affinity: Callable[[str], Float64[np.ndarray, "channel image mask"]],
    orientations: Sequence[str],
) -> Judgement:
    """Judge a declared pairing.

    Args:
        candidates: What is examined.
        affinity: Scores for masks in an orientation.
        orientations: Those to try where the masks do not fit as they are.
    """
    count = len(candidates.images)
    if count < FEWEST:
        return _cannot_tell(
            candidates,
            f"cannot tell whether the masks belong to these slices: {count} can be examined, "
            f"expected at least {FEWEST}",
        )
    rng = np.random.default_rng(_SEED)
    scores = affinity(AS_THEY_ARE)
    chance = p_value(scores, rng)
    orientation, found = AS_THEY_ARE, best_assignment(scores)
    found_scores = scores
    if chance > _CLEAR_P or _own_share(found, candidates) < _CLEAR_SHARE:
        for other in orientations:
            turned = affinity(other)
            optimum = best_assignment(turned)
            needed = found.statistic * (_CLEARER if orientation == AS_THEY_ARE else 1)
            if other != AS_THEY_ARE and optimum.statistic > needed:
                orientation, found, found_scores = other, optimum, turned
    loudness = strength(found.statistic, found_scores, rng)
    share = _own_share(found, candidates)
    pairing = Pairing(
        own_mask_wins=share,
        p_value=chance,
        assignment={
            image: candidates.masks[place]
            for image, place in zip(candidates.images, found.assignment, strict=True)
        },
        cause=_cause(found, orientation, candidates),
        orientation=orientation,
        channel=found.channel,
        strength=loudness,
        examined=count,
    )
    check = _verdict(candidates, pairing, found)
    return Judgement(check, pairing, centred(found_scores, found.variant))


def _verdict(candidates: Candidates, pairing: Pairing, found: Optimum) -> Check:
    assert pairing.p_value is not None  # noqa: S101 - both were computed just now
    assert pairing.strength is not None  # noqa: S101
    share, chance = pairing.own_mask_wins or 0.0, pairing.p_value
    loud = pairing.strength >= _LOUD
    turned = pairing.orientation != AS_THEY_ARE
    displaced = _displaced(found, candidates)
    facts = (
        f"{share:.0%} of {pairing.examined} slices fit their own mask best "
        f"(p = {chance:.2g} that random pairs fit as well)"
    )
    if loud and (turned or chance > _CLEAR_P or pairing.cause is not None or share < 0.5):
        return _check(Verdict.FAIL, candidates, f"{facts}; {_what_to_do(pairing)}")
    if chance > _CLEAR_P:
        return _check(
            Verdict.WARN,
            candidates,
            f"cannot tell whether the masks belong to these slices: {facts}, and no other pairing "
            f"stands out; look at some pairs yourself (`emcache dataset show`)",
        )
    # A neighbour's mask in a fine stack is nearly the same mask: single steps are no alarm.
    far = [place for place in displaced if abs(int(found.assignment[place]) - place) > 1]
    if loud and far:
        names = ", ".join(candidates.images[place] for place in far[:_NAMED])
        more = f" and {len(far) - _NAMED} more" if len(far) > _NAMED else ""
        return _check(
            Verdict.WARN,
            candidates,
            f"{facts}; another mask fits {names}{more} better: look at these pairs",
        )
    return _check(Verdict.PASS, candidates, facts)


def _what_to_do(pairing: Pairing) -> str:
    if pairing.orientation != AS_THEY_ARE:
        what = f"the masks fit when they are {pairing.orientation}"
        order = (
            "" if pairing.cause == pairing.orientation else f", in another order ({pairing.cause})"
        )
        return f"{what}{order}: turn them back"
    if pairing.cause is not None:
        return (
            f"another pairing fits far better, likely cause: {pairing.cause}; pair them as the "
            f"assignment says"
        )
    return "another pairing fits far better; pair them as the assignment says"


def _cause(found: Optimum, orientation: str, candidates: Candidates) -> str | None:
    order = likely_cause(found.assignment, candidates.images, candidates.masks)
    if orientation == AS_THEY_ARE:
        return order
    if not _displaced(found, candidates):
        return orientation
    return f"{orientation}, {order or 'another order'}"


def _displaced(found: Optimum, candidates: Candidates) -> list[int]:
    """Slices to which the best assignment gives a mask with other pixels than their own."""
    hashes = candidates.mask_sha256s
    return [
        place
        for place, mask in enumerate(_places(found.assignment))
        if hashes[mask] != hashes[place]
    ]


def _places(assignment: Int64[np.ndarray, " image"]) -> list[int]:
    places: list[int] = assignment.tolist()
    return places


def _own_share(found: Optimum, candidates: Candidates) -> float:
    return 1 - len(_displaced(found, candidates)) / len(candidates.images)


def _cannot_tell(candidates: Candidates, why: str) -> Judgement:
    nothing = Pairing(None, None, {}, None, AS_THEY_ARE, "", None, len(candidates.images))
    return Judgement(_check(Verdict.WARN, candidates, why), nothing, None)


def _check(verdict: Verdict, candidates: Candidates, message: str) -> Check:
    note = f" {candidates.note}" if candidates.note else ""
    return Check("pairing", verdict, f"{message}.{note}")
