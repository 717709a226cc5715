"""What is sure of the masks that a search found: turned, displaced, in a known order, doubtful.

Thresholds in standard errors are those of tile sums (:meth:`emcache.audit.evidence.Fit.z`). On
images and masks that have nothing to do with each other such a figure has a standard deviation of
1.1 (neighbouring slices of two volumes of Lucchi++).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from emcache.audit.evidence import VARIANTS, Fit, fit_each, measure
from emcache.audit.orders import Order, explaining_order
from emcache.audit.pictures import AS_THEY_ARE
from emcache.audit.scratch import Pair, Scratch
from emcache.audit.search import Found, search

FEWEST = 5
"""Fewer slices than this are never judged."""

SPEAKING = 0.5
"""Share of the slices that the halves must agree on before any is accused."""

CONFIRMED = 0.8
"""Share of the slices that must have their own mask for a pass."""

CLEAR = 3.5
"""Standard errors by which another mask must fit better, over both halves."""

PLAIN = 0.9
"""Share of the slices that the halves agree on where the data speak plainly."""

_CLEAR_WHERE_PLAIN = 1.5
"""What is asked of look-alikes where all else is certain."""
_CLEAR_ORDER = 5.0
"""What is asked of a known order that no slice by itself confirms: many are tried."""
_CLEAR_SHIFT = 2.5
"""The same where the data speak plainly. In a smooth stack masks that are all off by one fit nearly
as well, and the halves cannot see it."""
_FAR = 0.3
"""A mask that fits better by this share of a usual fit is no look-alike."""
_POOR = 0.4
"""A mask that fits less well than this share of the middle fit is looked at again."""
_LEANING = 2.0
"""Standard errors from which it is known on which side of a channel masks lie."""
_AMBIGUOUS = 1.5
_SHORT = 20
"""In so short a stack of look-alikes the halves may agree whichever way masks are turned."""
_FEWEST_TO_DOUBT = 8
_MOST_MEASURED = 400


class Weighing:
    """The slices of one audit.

    Args:
        scratch: The slices.
        names: For each mask the first place at which its pixels stand.
        orders: Known ways in which the declared pairing may be wrong.
    """

    def __init__(
        self, scratch: Scratch, names: Int64[np.ndarray, " mask"], orders: Sequence[Order]
    ) -> None:
        self._scratch = scratch
        self._names = names
        self._orders = orders
        self._places = np.arange(len(names))
        self.orientation = AS_THEY_ARE
        """How masks have to be turned."""

    def find(self) -> Found:
        """Search as the masks are, and turned where they do not fit so."""
        upright = search(self._scratch, self._names)
        if upright.share >= PLAIN and len(self._places) > _SHORT:
            return upright
        best = upright
        most = self.fit(upright) + CLEAR
        for orientation in self._scratch.orientations:
            if orientation != AS_THEY_ARE:
                found = search(self._scratch, self._names, orientation)
                fit = self.fit(found)
                if found.share >= SPEAKING and found.count >= FEWEST and fit >= most:
                    best, most = found, fit
        self.orientation = best.orientation
        return best

    def fit(self, found: Found) -> float:
        """Standard errors by which the masks that were found fit better than masks anywhere.

        The mean image stays: in a short stack it holds most of what slices show.
        """
        images = _spread(np.flatnonzero(found.agreed >= 0))
        pairs = [(i, int(found.agreed[i]), found.orientation) for i in images]
        ((fit,),) = measure(self._scratch, [pairs], [slice(None)], centred=False)
        return fit.z(found.variant) if pairs else 0.0

    def displaced(self, found: Found) -> Int64[np.ndarray, " image"]:
        """For each slice that certainly has another slice's mask the mask of its own; else -1."""
        moved = np.full(len(self._places), -1)
        other = (found.agreed >= 0) & (found.agreed != self._places)
        if found.share < SPEAKING or not other.any():
            return moved
        far = other & (found.gains >= _FAR)
        near = other & ~far
        accused = np.zeros(len(other), dtype=bool)
        if far.any() and (found.share >= CONFIRMED or self._gain(far, found) >= CLEAR):
            accused |= far
        plain = accused.any() or found.share >= PLAIN
        if near.any() and self._gain(near, found) >= (_CLEAR_WHERE_PLAIN if plain else CLEAR):
            accused |= near
        if accused.any():
            settled = np.where(accused | ~other, found.agreed, -1)
            order = explaining_order(settled, self._orders)
            if order is not None:
                accused |= other & (found.agreed == order.masks)
        moved[accused] = found.agreed[accused]
        return moved

    def _gain(self, accused: Bool[np.ndarray, " image"], found: Found) -> float:
        """Standard errors by which masks that were found fit better, over both halves.

        Each half measures what the other chose; it chose the same.
        """
        images = _spread(np.flatnonzero(accused))
        ours = [(i, int(found.agreed[i]), found.orientation) for i in images]
        theirs = [(i, i, found.orientation) for i in images]
        halves = measure(self._scratch, [ours, theirs], self._scratch.tiling.halves)
        zs = [(one - other).z(found.variant) for one, other in halves]
        return float(sum(zs) / np.sqrt(len(zs))) if min(zs) > 0 else min(zs)

    def best_order(self, found: Found) -> tuple[Order | None, float, int]:
        """The known order that fits best, by how many standard errors, and under which variant.

        Not all of a shifted stack's images have their mask in it. So an order is compared with the
        declared one twice, by the same images and by the same masks, and the smaller difference
        counts: masks that fit well anywhere and images that anything fits are in one of the two.
        The mean image stays, since in a smooth stack it tells a shift from none.
        """
        turn = found.orientation
        orders = [order for order in self._orders if AS_THEY_ARE in (turn, order.orientation)]
        groups: list[list[Pair]] = [
            [(i, i, turn) for i in _spread(self._places)],
            [(i, int(found.agreed[i]), turn) for i in _spread(np.flatnonzero(found.agreed >= 0))],
        ]
        for order in orders:
            images = _spread(order.images)
            masks = order.masks[images].tolist()
            turned = order.orientation if order.orientation != AS_THEY_ARE else turn
            groups += [
                [(i, m, turned) for i, m in zip(images, masks, strict=True)],
                [(i, i, turn) for i in images],
                [(m, m, turn) for m in masks],
            ]
        (fits,) = measure(self._scratch, groups, [slice(None)], centred=False)
        if found.share >= SPEAKING:
            variant = _plainest(found.variant, fits[1])
        else:
            speaking = _speaking_variant([fits[0], *fits[2::3]])
            if speaking is None:
                return None, 0.0, found.variant
            variant = speaking
        best: tuple[bool, float] = (False, -np.inf)
        chosen, evidence = None, 0.0
        for order, ours, *declared in zip(orders, fits[2::3], fits[3::3], fits[4::3], strict=True):
            differences = [ours - one for one in declared]
            z = min(one.z(variant) for one in differences)
            # Two orders may both beat the declared one; the one that fits best is meant.
            clear = z >= _CLEAR_SHIFT
            rank = (clear, min(one.mean(variant) for one in differences) if clear else z)
            if rank > best:
                best, chosen, evidence = rank, order, z
        return chosen, evidence, variant

    def is_clear(self, evidence: float, found: Found) -> bool:
        """Whether a known order is proven by so many standard errors."""
        return evidence >= (_CLEAR_SHIFT if found.share >= PLAIN else _CLEAR_ORDER)

    def doubtful(self, own: Bool[np.ndarray, " image"], variant: int) -> Bool[np.ndarray, " image"]:
        """Slices whose own mask fits like any other, in a dataset where that stands out.

        Args:
            own: Slices that have their own mask.
            variant: From :meth:`best_order`.
        """
        if own.mean() < CONFIRMED or len(own) < _FEWEST_TO_DOUBT:
            return np.zeros(len(own), dtype=bool)
        pairs = [(i, i, self.orientation) for i in self._places.tolist()]
        fits = fit_each(self._scratch, pairs, variant)
        doubtful: Bool[np.ndarray, " image"] = fits < _POOR * np.median(fits[own])
        return doubtful


def _spread(places: Int64[np.ndarray, " place"]) -> list[int]:
    """All of some places, or some at even distances."""
    step = max(1, -(-len(places) // _MOST_MEASURED))
    chosen: list[int] = places[::step].tolist()
    return chosen


def _plainest(variant: int, fit: Fit) -> int:
    """The variant in which every channel counts on which masks clearly lie, whichever way."""
    signs = tuple(
        float(np.sign(z)) if abs(z) >= _LEANING else 0.0
        for z in (fit.z(VARIANTS.index(channel)) for channel in ((1, 0), (0, 1)))
    )
    return VARIANTS.index(signs) if signs in VARIANTS else variant


def _speaking_variant(fits: Sequence[Fit]) -> int | None:
    """The variant under which one of some orders fits best; None where its opposite does as well.

    In a short stack of slices that look alike the worst order of one variant is the best of its
    opposite.
    """
    best = [max(fit.z(variant) for fit in fits) for variant in range(len(VARIANTS))]
    chosen = int(np.argmax(best))
    opposite = VARIANTS.index((-VARIANTS[chosen][0], -VARIANTS[chosen][1]))
    return chosen if best[chosen] >= _AMBIGUOUS * max(best[opposite], 0.0) else None
