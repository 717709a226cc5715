"""The verdict on a pairing: is every mask where its slice is?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from emcache.audit.evidence import variant_name
from emcache.audit.findings import Check, Pairing, Verdict
from emcache.audit.orders import explain, known_orders, scopes
from emcache.audit.pictures import AS_THEY_ARE
from emcache.audit.scratch import Scratch
from emcache.audit.weighing import CLEAR, CONFIRMED, FEWEST, Weighing

_FEWEST_TO_FAIL = 7
"""Two halves of five slices agree by chance once in 120 times, and of seven once in 5,000."""
_OPEN = 0.5
"""Where a known order fits so many standard errors better, nothing is said."""
_NAMED = 3
_LOOK = "look at some pairs yourself (`emcache dataset show`)"


@dataclass(frozen=True, slots=True)
class Candidates:
    """The slices that are examined, in the order of the declared pairing."""

    images: Sequence[str]
    """Files, as paths below the root."""
    masks: Sequence[str]
    """Files declared for them."""
    mask_sha256s: Sequence[str]
    """Of the masks' pixels: the same mask under two names is one."""
    splits: Sequence[str]
    """The split of each; empty where it has none."""
    note: str = ""
    """What was left out, and why; a sentence or nothing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a pairing, and what it rests on."""

    check: Check
    pairing: Pairing
    shown: Int64[np.ndarray, " shown"]
    """A run of slices that were compared with each other."""
    scores: Float64[np.ndarray, "shown shown"] | None
    """Their centred scores, high where image and mask fit; None where nothing was examined."""


def judge_pairing(candidates: Candidates, scratch: Scratch | None) -> Judgement:
    """Judge a declared pairing.

    Args:
        candidates: What is examined.
        scratch: Their slices, in the same order; None where there are too few.
    """
    count = len(candidates.images)
    if scratch is None or count < FEWEST:
        return _cannot_compare(candidates, f"{count} can be examined, expected at least {FEWEST}")
    first: dict[str, int] = {}
    shas = candidates.mask_sha256s
    names = np.array([first.setdefault(sha, place) for place, sha in enumerate(shas)])
    if len(first) < FEWEST:
        why = f"they have {len(first)} different masks, expected at least {FEWEST}"
        return _cannot_compare(candidates, why)
    orders = known_orders(
        candidates.images, candidates.masks, candidates.splits, scratch.orientations
    )
    weighing = Weighing(scratch, names, orders)
    found = weighing.find()
    places = np.arange(count)
    moved = weighing.displaced(found)
    own = (found.agreed == places) & (moved < 0)
    cause = explain(
        np.where(own, places, moved), orders, scopes(candidates.images, candidates.splits)
    )
    order, evidence, variant = weighing.best_order(found)
    if cause is None and order is not None and weighing.is_clear(evidence, found):
        cause, moved = order.name, order.masks
        own &= moved < 0
    if found.orientation != AS_THEY_ARE:
        cause = found.orientation if cause is None else f"{found.orientation}, {cause}"
    pairing = Pairing(
        own_mask_wins=float(own.mean()),
        assignment=_files(candidates, np.where(own, places, moved)),
        displaced=_files(candidates, moved),
        undecided=_images(candidates, ~own & (moved < 0)),
        doubtful=_images(candidates, weighing.doubtful(own, variant) & (moved < 0)),
        evidence=evidence,
        cause=cause,
        orientation=found.orientation,
        channel=variant_name(found.variant),
        examined=count,
    )
    check = _verdict(candidates, pairing, weighing.fit(found) >= CLEAR)
    return Judgement(check, pairing, found.shown, found.scores)


def _cannot_compare(candidates: Candidates, why: str) -> Judgement:
    nothing = Pairing(None, {}, {}, (), (), None, None, AS_THEY_ARE, "", len(candidates.images))
    message = f"cannot tell whether the masks belong to these slices: {why}"
    return Judgement(_check(Verdict.WARN, candidates, message), nothing, np.arange(0), None)


def _files(candidates: Candidates, masks: Int64[np.ndarray, " image"]) -> dict[str, str]:
    """Images by file with the files of their masks, where there is one."""
    return {
        candidates.images[place]: candidates.masks[mask]
        for place, mask in enumerate(masks.tolist())
        if mask >= 0
    }


def _images(candidates: Candidates, chosen: Bool[np.ndarray, " image"]) -> tuple[str, ...]:
    return tuple(
        image for image, wanted in zip(candidates.images, chosen.tolist(), strict=True) if wanted
    )


def _verdict(candidates: Candidates, pairing: Pairing, fitting: bool) -> Check:
    share = pairing.own_mask_wins or 0.0
    count = pairing.examined
    won = f"{round(share * count)} of {count} slices fit their own mask best"
    unsure = f"cannot tell whether the masks belong to these slices: {won}"
    verdict, message = Verdict.PASS, won
    if pairing.cause is not None and count >= _FEWEST_TO_FAIL:
        verdict, message = Verdict.FAIL, f"{won}; {_what_to_do(pairing)}"
    elif pairing.cause is not None:
        verdict = Verdict.WARN
        message = (
            f"{won}; other masks seem to fit better ({pairing.cause}), but so few slices can agree "
            f"by chance: {_LOOK}"
        )
    elif share < CONFIRMED or not fitting:
        verdict = Verdict.WARN
        message = f"{unsure}, and for the others no mask stands out; {_LOOK}"
    elif (pairing.evidence or 0.0) > _OPEN:
        verdict = Verdict.WARN
        message = f"{unsure}, but a shift by a few slices fits as well; {_LOOK}"
    elif pairing.doubtful:
        verdict = Verdict.WARN
        message = (
            f"{won}; the masks of {_listed(pairing.doubtful)} fit no better than those of other "
            f"slices: look at these pairs"
        )
    elif pairing.undecided:
        message = f"{won}; cannot tell for {_listed(pairing.undecided)}"
    return _check(verdict, candidates, message)


def _what_to_do(pairing: Pairing) -> str:
    if pairing.orientation != AS_THEY_ARE:
        what = f"the masks fit when they are {pairing.orientation}"
        if pairing.cause != pairing.orientation:
            what = f"{what}, in another order ({pairing.cause})"
        return f"{what}: turn them back"
    moved = list(pairing.displaced)
    if 2 * len(moved) < pairing.examined:
        what = f"other masks fit {_listed(moved)} better, likely cause: {pairing.cause}"
    else:
        what = f"another pairing fits far better, likely cause: {pairing.cause}"
    return f"{what}; pair them as the assignment says"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _check(verdict: Verdict, candidates: Candidates, message: str) -> Check:
    note = f" {candidates.note}" if candidates.note else ""
    return Check("pairing", verdict, f"{message}.{note}")
