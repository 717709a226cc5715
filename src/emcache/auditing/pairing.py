"""The verdict on a pairing: is every mask where its slice is?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from emcache.auditing.evidence import variant_name
from emcache.auditing.findings import Check, Pairing
from emcache.auditing.orders import explain, known_orders, scopes
from emcache.auditing.scratch import AS_THEY_ARE, Scratch
from emcache.auditing.weighing import CLEAR, CONFIRMED, FEWEST, Weighing
from emcache.findings import Verdict

_FEWEST_TO_FAIL = 7
"""Two halves of five slices agree by chance once in 120 times, and of seven once in 5,000."""
_SMALLEST_TILE = 12
"""In smaller tiles, of images below 96 pixels, halves of noise agree too often."""
_OPEN = 0.0
"""Where a known order of the whole dataset fits better at all, nothing is said."""
_NAMED = 3
_LOOK = "look at some pairs yourself (`emcache dataset show`)"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Declared pairs of a dataset, in its order."""

    images: Sequence[str]
    """Files, as paths below the root."""
    masks: Sequence[str]
    """Files declared for them."""
    splits: Sequence[str]
    """The split of each; empty where it has none."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is examined."""

    pairs: Pairs
    """The pairs of the dataset, those with empty masks too."""
    examined: Sequence[int]
    """Places of the pairs that are examined."""
    mask_sha256s: Sequence[str]
    """Of the examined masks' pixels: the same mask under two names is one."""
    note: str = ""
    """What was left out, and why; a sentence or nothing."""

    @property
    def images(self) -> list[str]:
        """Files of the examined images."""
        return [self.pairs.images[place] for place in self.examined]

    @property
    def masks(self) -> list[str]:
        """Files of the masks declared for them."""
        return [self.pairs.masks[place] for place in self.examined]

    @property
    def splits(self) -> list[str]:
        """Their splits."""
        return [self.pairs.splits[place] for place in self.examined]


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
    count = len(candidates.examined)
    if scratch is None or count < FEWEST:
        return _cannot_compare(candidates, f"{count} can be examined, expected at least {FEWEST}")
    first: dict[str, int] = {}
    shas = candidates.mask_sha256s
    names = np.array([first.setdefault(sha, place) for place, sha in enumerate(shas)])
    if len(first) < FEWEST:
        why = f"they have {len(first)} different masks, expected at least {FEWEST}"
        return _cannot_compare(candidates, why)
    repeated = _longest_run(names)
    pairs = candidates.pairs
    orders = [
        order
        for order in known_orders(
            pairs.images, pairs.masks, pairs.splits, scratch.orientations, candidates.examined
        )
        # A mask that was copied to its neighbours fits the one better that it was drawn for.
        if repeated == 1 or not 0 < order.step <= repeated
    ]
    weighing = Weighing(scratch, names, orders)
    found = weighing.find()
    places = np.arange(count)
    moved = weighing.displaced(found)
    if repeated > 1:
        moved[abs(moved - places) <= repeated] = -1
    own = (found.agreed == places) & (moved < 0)
    cause = explain(
        np.where(own, places, moved), orders, scopes(candidates.images, candidates.splits)
    )
    order, evidence, variant = weighing.best_order(found)
    orientation = found.orientation
    if cause is None and order is not None:
        cause, orientation = order.name, order.orientation
        moved = np.where(order.masks != places, order.masks, -1)
        own &= moved < 0 if orientation == AS_THEY_ARE else order.masks < 0
    if found.orientation != AS_THEY_ARE:
        cause = found.orientation if cause is None else f"{found.orientation}, {cause}"
    pairing = Pairing(
        own_mask_wins=float(own.mean()),
        assignment=_files(candidates, np.where(own, places, moved)),
        displaced=_files(candidates, moved),
        undecided=_images(candidates, ~own & (moved < 0)),
        doubtful=_images(candidates, weighing.doubtful(variant) & (moved < 0)),
        evidence=evidence,
        cause=cause,
        orientation=orientation,
        channel=variant_name(found.variant),
        examined=count,
    )
    enough = count >= _FEWEST_TO_FAIL and scratch.tiling.side >= _SMALLEST_TILE
    check = _verdict(candidates, pairing, weighing.fit(found) >= CLEAR, enough)
    return Judgement(check, pairing, found.shown, found.scores)


def _cannot_compare(candidates: Candidates, why: str) -> Judgement:
    nothing = Pairing(orientation=AS_THEY_ARE, examined=len(candidates.images))
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


def _longest_run(names: Int64[np.ndarray, " mask"]) -> int:
    """Over how many neighbours the same mask stands, where that is common."""
    changes = np.flatnonzero(np.diff(names) != 0)
    runs = np.diff(np.concatenate([[-1], changes, [len(names) - 1]]))
    # Some masks may be equal by chance, or by a mistake.
    return int(runs.max()) if 2 * (runs > 1).sum() > len(runs) / 2 else 1


def _verdict(candidates: Candidates, pairing: Pairing, fitting: bool, enough: bool) -> Check:
    share = pairing.own_mask_wins or 0.0
    count = pairing.examined
    won = f"{round(share * count)} of {count} slices fit their own mask best"
    unsure = f"cannot tell whether the masks belong to these slices: {won}"
    verdict, message = Verdict.PASS, won
    if pairing.cause is not None and enough:
        verdict, message = Verdict.FAIL, f"{won}; {_what_to_do(pairing)}"
    elif pairing.cause is not None:
        verdict = Verdict.WARN
        message = (
            f"{won}; other masks seem to fit better ({pairing.cause}), but in so few or so small "
            f"slices that may be chance: {_LOOK}"
        )
    elif share < CONFIRMED or not fitting:
        verdict = Verdict.WARN
        message = f"{unsure}, and for the others no mask stands out; {_LOOK}"
    elif (pairing.evidence or 0.0) > _OPEN:
        verdict = Verdict.WARN
        message = f"{unsure}, but another order of the whole dataset fits as well; {_LOOK}"
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
        return f"the masks fit when they are {pairing.cause}: turn them back"
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
