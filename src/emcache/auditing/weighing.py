"""What is sure of the masks that a search found: turned, displaced, in a known order, doubtful.

Thresholds in standard errors are those of tile sums (:meth:`emcache.auditing.evidence.Fit.z`). On
images and masks that have nothing to do with each other such a figure has a standard deviation of
1.1 (neighbouring slices of two volumes of Lucchi++).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from emcache.auditing.evidence import VARIANTS, Fit, fit_each, measure
from emcache.auditing.orders import Order, explaining_order
from emcache.auditing.scratch import AS_THEY_ARE, Pair, Scratch
from emcache.auditing.search import Found, search, spread

FEWEST = 5
"""Fewer slices than this are never judged."""

_CLEAR_SHARE = 0.5
"""Share of the slices that the halves must agree on before any is accused."""
_FEWEST_AGREED = 8
"""So many as well: of the 8 variants one agrees by chance on 8 slices once in 10,000 times."""

CONFIRMED = 0.8
"""Share of the slices that must have their own mask for a pass."""

CLEAR = 3.5
"""Standard errors by which another mask must fit better, over both halves."""

PLAIN = 0.9
"""Share of slices that the halves must agree on, to trust the scores."""

_CLEAR_ALIKE = 4.0
"""What is asked of masks that look like the declared ones."""
_CLEAR_WHERE_ALL_AGREE = 1.5
"""What is asked of these where the halves agree on every slice."""
_CLEAR_ORDER = 5.0
"""What is asked of a known order that no slice by itself confirms: many are tried."""
_CLEAR_SHIFT = 2.5
"""The same where the scores are trusted. In a smooth stack masks that are all off by one fit nearly
as well, and the halves cannot see it."""
_FAR = 0.3
"""A mask that fits better by this share of a usual fit is not a look-alike."""
_POOR = 0.4
"""A mask that fits less well than this share of the middle fit is looked at again."""
_CERTAINLY_POOR = 0.7
"""The same with three standard errors added."""
_PLAIN_FIT = 5.0
"""Standard errors by which the middle mask must fit for one that does not to stand out."""
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
                if self.is_clear(found) and fit >= most:
                    best, most = found, fit
        self.orientation = best.orientation
        return best

    def is_clear(self, found: Found) -> bool:
        """Whether the halves agree on more slices than by chance."""
        return found.share >= _CLEAR_SHARE and found.count >= min(_FEWEST_AGREED, len(self._places))

    def fit(self, found: Found) -> float:
        """Standard errors by which the masks that were found fit better than masks anywhere.

        The mean image stays: in a short stack it holds most of what slices show.
        """
        images = _some(np.flatnonzero(found.agreed >= 0))
        pairs = [(i, int(found.agreed[i]), found.orientation) for i in images]
        ((fit,),) = measure(self._scratch, [pairs], [slice(None)], centred=False)
        return fit.z(found.variant) if pairs else 0.0

    def displaced(self, found: Found) -> Int64[np.ndarray, " image"]:
        """For each slice that certainly has another slice's mask the mask of its own; else -1."""
        moved = np.full(len(self._places), -1)
        other = (found.agreed >= 0) & (found.agreed != self._places)
        if not self.is_clear(found) or not other.any():
            return moved
        far = other & (found.gains >= _FAR)
        near = other & ~far
        accused = np.zeros(len(other), dtype=bool)
        if far.any() and (found.share >= CONFIRMED or self._gain(far, found) >= CLEAR):
            accused |= far
        # Two halves that differ on any slice may also agree by chance on a look-alike.
        needed = _CLEAR_ALIKE if found.share < 1 else _CLEAR_WHERE_ALL_AGREE
        if near.any() and self._gain(near, found) >= needed:
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
        images = _some(np.flatnonzero(accused))
        ours = [(i, int(found.agreed[i]), found.orientation) for i in images]
        theirs = [(i, i, found.orientation) for i in images]
        halves = measure(self._scratch, [ours, theirs], self._scratch.tiling.halves)
        zs = [(one - other).z(found.variant) for one, other in halves]
        return float(sum(zs) / np.sqrt(len(zs))) if min(zs) > 0 else min(zs)

    def best_order(self, found: Found) -> tuple[Order | None, float, int]:
        """The known order that is clearly the right one, if one is.

        Not all of a shifted stack's images have their mask in it. So an order is compared with the
        declared one twice, by the same images and by the same masks, and the smaller difference
        counts: masks that fit well anywhere and images that anything fits are in one of the two.
        For shifts the mean image stays, since in a smooth stack it tells a shift from none.

        Returns:
            The order or None; the most standard errors by which an order of the whole dataset fits
            better than the declared one; the variant that this was measured under.
        """
        turn = found.orientation
        orders = [
            order
            for order in self._orders
            if order.is_testable and AS_THEY_ARE in (turn, order.orientation)
        ]
        agreed = _some(np.flatnonzero(found.agreed >= 0))
        groups: list[list[Pair]] = [
            [(i, i, turn) for i in _some(self._places)],
            [(i, int(found.agreed[i]), turn) for i in agreed],
        ]
        for order in orders:
            images = _some(order.images)
            masks = order.masks[images].tolist()
            turned = order.orientation if order.orientation != AS_THEY_ARE else turn
            groups += [
                [(i, m, turned) for i, m in zip(images, masks, strict=True)],
                [(i, i, turn) for i in images],
                [(m, m, turn) for m in masks],
            ]
        (fits,) = measure(self._scratch, groups, [slice(None)])
        if self.is_clear(found):
            variant = _plainest(found.variant, fits[1])
        else:
            speaking = _speaking_variant([fits[0], *fits[2::3]])
            if speaking is None:
                return None, 0.0, found.variant
            variant = speaking
        shifts = [place for place, order in enumerate(orders) if order.step]
        smooth = [group for place in shifts for group in groups[2 + 3 * place : 5 + 3 * place]]
        (uncentred,) = measure(self._scratch, smooth, [slice(None)], centred=False)
        for number, place in enumerate(shifts):
            fits[2 + 3 * place : 5 + 3 * place] = uncentred[3 * number : 3 * number + 3]
        plain = found.share >= PLAIN
        chosen, most, evidence = None, -np.inf, -np.inf
        for place, order in enumerate(orders):
            ours, *declared = fits[2 + 3 * place : 5 + 3 * place]
            differences = [ours - one for one in declared]
            z = min(one.z(variant) for one in differences)
            if order.everywhere:
                evidence = max(evidence, z)
            needed = _CLEAR_SHIFT if plain and order.everywhere and order.step else _CLEAR_ORDER
            # Two orders may both beat the declared one; the one that fits best is meant.
            gain = min(one.mean(variant) for one in differences)
            if z >= needed and gain > most:
                chosen, most = order, gain
        return chosen, float(evidence) if np.isfinite(evidence) else 0.0, variant

    def doubtful(self, variant: int) -> Bool[np.ndarray, " image"]:
        """Slices whose own mask fits like any other, in a dataset where that stands out.

        Args:
            variant: From :meth:`best_order`.
        """
        pairs = [(i, i, self.orientation) for i in self._places.tolist()]
        fits, errors = fit_each(self._scratch, pairs, variant)
        middle = float(np.median(fits))
        if len(fits) < _FEWEST_TO_DOUBT or middle < _PLAIN_FIT * float(np.median(errors)):
            return np.zeros(len(fits), dtype=bool)
        # Small masks have large errors.
        doubtful: Bool[np.ndarray, " image"] = (fits < _POOR * middle) & (
            fits + 3 * errors < _CERTAINLY_POOR * middle
        )
        return doubtful


def _some(places: Int64[np.ndarray, " place"]) -> list[int]:
    chosen: list[int] = spread(places, _MOST_MEASURED).tolist()
    return chosen


def _plainest(variant: int, fit: Fit) -> int:
    """The variant, with the other channel where masks clearly lie on one side of that as well."""
    weights = list(VARIANTS[variant])
    for place, channel in enumerate(((1.0, 0.0), (0.0, 1.0))):
        z = fit.z(VARIANTS.index(channel))
        if not weights[place] and abs(z) >= _LEANING:
            weights[place] = float(np.sign(z))
    return VARIANTS.index((weights[0], weights[1]))


def _speaking_variant(fits: Sequence[Fit]) -> int | None:
    """The variant under which one of some orders fits best; None where its opposite does as well.

    In a short stack of slices that look alike the worst order of one variant is the best of its
    opposite.
    """
    best = [max(fit.z(variant) for fit in fits) for variant in range(len(VARIANTS))]
    chosen = int(np.argmax(best))
    opposite = VARIANTS.index((-VARIANTS[chosen][0], -VARIANTS[chosen][1]))
    return chosen if best[chosen] >= _AMBIGUOUS * max(best[opposite], 0.0) else None
