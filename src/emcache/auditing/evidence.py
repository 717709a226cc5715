"""What the two halves of the tiles say, and how sure that is.

Scores are centred by rows and columns: a mask whose outline is strong everywhere and an image that
is busy everywhere say nothing about each other. Each half of the tiles solves the assignment of
masks to images by itself. Noise makes two halves disagree: for n slices, two random assignments
give the same mask to one slice on average, whatever n is. So what both halves say is said by the
pixels, and how much better another mask fits can be measured in the half that did not choose it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used
from jaxtyping import Float, Float64, Int64

from emcache.auditing.pictures import CHANNELS
from emcache.auditing.scratch import Pair, Scratch

VARIANTS: tuple[tuple[float, float], ...] = (
    (1, 0),
    (-1, 0),
    (0, 1),
    (0, -1),
    (1, -1),
    (1, 1),
    (-1, -1),
    (-1, 1),
)
"""Weights of the channels: outlines on strong or weak gradients, insides bright or dark."""

_TINY = 1e-9
_FEWEST_TILES = 4
_FEW_TILES = 3
_TILE_VARIANCE = 0.25
"""Of the mean of a channel under a mask within one tile."""
_PAIRS_AT_ONCE = 512
_AS_GOOD = 0.1


def variant_name(variant: int) -> str:
    """A variant in words."""
    gradient, brightness = VARIANTS[variant]
    words = []
    if gradient:
        words.append(f"{'strong' if gradient > 0 else 'weak'} gradients on the outline")
    if brightness:
        words.append(f"{'bright' if brightness > 0 else 'dark'} inside")
    return " and ".join(words)


@dataclass(frozen=True, slots=True)
class Halves:
    """The assignments of both halves, under one variant."""

    variant: int
    """Place in :data:`VARIANTS`."""
    scores: Float64[np.ndarray, "2 image mask"]
    """Centred scores of each half, in standard deviations of a random assignment's sum."""
    choices: Int64[np.ndarray, "2 image"]
    """For each image the mask that each half gives to it; -1 where none fits."""

    @property
    def agreed(self) -> Int64[np.ndarray, " image"]:
        """For each image the mask that both halves give to it; -1 where they differ."""
        first, second = self.choices
        both: Int64[np.ndarray, " image"] = np.where(first == second, first, -1)
        return both

    @property
    def count(self) -> int:
        """How many images the halves agree on."""
        return int((self.agreed >= 0).sum())

    def fits(self) -> Float64[np.ndarray, "2 image mask"]:
        """Scores as shares of the middle score of the pairs that both halves agree on."""
        agreed = self.agreed
        images = np.flatnonzero(agreed >= 0)
        if not len(images):
            return np.zeros_like(self.scores)
        typical = np.median(self.scores[:, images, agreed[images]], axis=1)
        fits: Float64[np.ndarray, "2 image mask"] = (
            self.scores / np.maximum(typical, _TINY)[:, None, None]
        )
        return fits


def _centred(
    scores: Float64[np.ndarray, "half channel image mask"],
) -> tuple[Float64[np.ndarray, "half channel image mask"], Float64[np.ndarray, "half channel 1 1"]]:
    """Centred by rows and columns, and scaled so that random assignments have variance 1.

    The sum of a centred n x n matrix C over a random assignment has the variance
    ``sum(C^2) / (n - 1)`` (Hoeffding 1951). What the scores were divided by is given too.
    """
    middle = (
        scores
        - scores.mean(axis=-1, keepdims=True)
        - scores.mean(axis=-2, keepdims=True)
        + scores.mean(axis=(-2, -1), keepdims=True)
    )
    spread = np.sqrt((middle**2).sum(axis=(-2, -1), keepdims=True) / (scores.shape[-1] - 1))
    spread = np.maximum(spread, _TINY)
    return middle / spread, spread


def compare_halves(
    scores: Float64[np.ndarray, "2 channel image mask"],
    typical: Float64[np.ndarray, "2 channel mask"],
    variant: int | None = None,
) -> Halves:
    """Solve the assignment in each half, under the variant with the clearest scores.

    That is one under which the halves agree most. In a short stack of slices that look alike, the
    worst order under one variant is the best under its opposite, and both halves may agree on
    either. So of the variants that are as good, the one is taken under which masks fit best before
    scores are centred: an outline lies on much the same gradients in the next slice.

    Args:
        scores: From :meth:`emcache.auditing.scratch.Scratch.scores`, of as many masks as images.
        typical: From :meth:`emcache.auditing.scratch.Scratch.typical`, of the same masks.
        variant: The variant, where it is known.
    """
    channels, spread = _centred(scores)
    common = (typical / spread[..., 0]).sum(axis=(0, 2))
    found = []
    with ThreadPoolExecutor(2, "assign") as pool:
        for place in range(len(VARIANTS)) if variant is None else (variant,):
            weights = np.array(VARIANTS[place])
            mixed, _ = _centred(np.einsum("c,hcij->hij", weights, channels)[:, None])
            mixed = mixed[:, 0]
            choices = list(pool.map(_assign, mixed))
            sums = [
                half[np.flatnonzero(c >= 0), c[c >= 0]].sum()
                for half, c in zip(mixed, choices, strict=True)
            ]
            total = sum(sums) + weights @ common / np.sqrt((weights**2).sum())
            found.append((Halves(place, mixed, np.stack(choices)), total))
    most = max(halves.count for halves, _ in found)
    margin = max(1, round(_AS_GOOD * scores.shape[-1]))
    good = [item for item in found if item[0].count >= most - margin]
    return max(good, key=lambda item: item[1])[0]


def _assign(scores: Float64[np.ndarray, "image mask"]) -> Int64[np.ndarray, " image"]:
    """For each image the mask of the best assignment, or -1.

    A pair that fits worse than a random one is left apart: the mask of an image may be missing, and
    one that must go somewhere would push all others out of their places.
    """
    count = len(scores)
    # Where nothing was measured all scores are 0, and nothing is assigned.
    padded = np.full((2 * count, 2 * count), _TINY)
    padded[:count, :count] = scores
    masks = scipy.optimize.linear_sum_assignment(padded, maximize=True)[1][:count]
    assigned: Int64[np.ndarray, " image"] = np.where(masks < count, masks, -1)
    return assigned


@dataclass(frozen=True, slots=True)
class Fit:
    """How well some pairs fit, or how much better than others, with what each tile gives to it."""

    means: Float64[np.ndarray, " channel"]
    """Sums over the pairs of the mean of each channel under the mask."""
    tiles: Float64[np.ndarray, "channel tile"]
    """Each tile's share of the error of the means."""
    least: Float64[np.ndarray, " channel"]
    """Variance of the means that tiles do not show: a mask within one tile has no error there."""

    def __sub__(self, other: Fit) -> Fit:
        return Fit(self.means - other.means, self.tiles - other.tiles, self.least + other.least)

    def z(self, variant: int) -> float:
        """The fit over its standard error, under a variant.

        A mean over a mask's pixels is a ratio of two sums over tiles; the variance of such ratios
        is that of their linearised tiles (Cochran 1977, section 6.13). Tiles are the units, added
        up over all pairs, so neighbours that look alike are not further evidence.
        """
        count = self.tiles.shape[1]
        if count < _FEWEST_TILES:
            return 0.0
        # Each channel counts by how sure it is.
        spread = np.sqrt((self.tiles**2).sum(axis=1) + self.least)
        mix = np.array(VARIANTS[variant]) / np.maximum(spread, _TINY)
        variance = ((mix @ self.tiles) ** 2).sum() * count / (count - 1)
        deviation = np.sqrt(variance + mix**2 @ self.least)
        return float(mix @ self.means / max(deviation, _TINY))

    def mean(self, variant: int) -> float:
        """The fit in the channels' own standard deviations, under a variant."""
        return float(np.array(VARIANTS[variant]) @ self.means)


def measure(
    scratch: Scratch,
    groups: Sequence[Sequence[Pair]],
    parts: Sequence[slice],
    centred: bool = True,
) -> list[list[Fit]]:
    """How well groups of pairs fit, in parts of the tiles.

    Args:
        scratch: The slices.
        groups: Of pairs; one in several groups is compared once.
        parts: The tiles of each part.
        centred: Whether the mean image is taken away.

    Returns:
        For each part, a fit for each group.
    """
    members: dict[Pair, list[int]] = {}
    for number, group in enumerate(groups):
        for pair in group:
            members.setdefault(pair, []).append(number)
    pairs = sorted(members)
    owned = [(number, row) for row, pair in enumerate(pairs) for number in members[pair]]
    numbers, rows = np.array(owned, np.int64).reshape(-1, 2).T
    shape = len(groups), len(pairs)
    owners = scipy.sparse.csc_array((np.ones(len(owned)), (numbers, rows)), shape)
    sums, sizes = scratch.tile_sums(pairs, centred)
    fits = []
    for part in parts:
        tiles = sums[..., part].shape[-1]
        totals = [np.zeros((len(groups), len(CHANNELS), *more)) for more in ((), (tiles,), ())]
        for run, found in _ratios_in_runs(sums[..., part], sizes[..., part]):
            for total, values in zip(totals, found, strict=True):
                total += (owners[:, run] @ values.reshape(len(values), -1)).reshape(total.shape)
        fits.append([Fit(*one) for one in zip(*totals, strict=True)])
    return fits


def fit_each(
    scratch: Scratch, pairs: Sequence[Pair], variant: int
) -> tuple[Float64[np.ndarray, " pair"], Float64[np.ndarray, " pair"]]:
    """How well each pair fits by itself, with its standard error.

    Args:
        scratch: The slices.
        pairs: Which.
        variant: Place in :data:`VARIANTS`.

    Returns:
        Both in the channels' standard deviations over the image.
    """
    weights = np.array(VARIANTS[variant])
    fits, errors = np.zeros(len(pairs)), np.zeros(len(pairs))
    for run, (means, shares, least) in _ratios_in_runs(*scratch.tile_sums(pairs, centred=False)):
        variance = (np.einsum("c,pct->pt", weights, shares) ** 2).sum(axis=1)
        fits[run] = means @ weights
        errors[run] = np.sqrt(variance + least @ weights**2)
    return fits, errors


_Ratios = tuple[
    Float64[np.ndarray, "pair channel"],
    Float64[np.ndarray, "pair channel tile"],
    Float64[np.ndarray, "pair channel"],
]


def _ratios_in_runs(
    sums: Float[np.ndarray, "pair channel tile"], sizes: Float[np.ndarray, "pair channel tile"]
) -> Iterator[tuple[slice, _Ratios]]:
    """:func:`ratios` of some pairs at a time: they take several times the memory of the sums."""
    for start in range(0, len(sums), _PAIRS_AT_ONCE):
        run = slice(start, start + _PAIRS_AT_ONCE)
        yield run, ratios(sums[run], sizes[run])


def ratios(
    sums: Float[np.ndarray, "pair channel tile"], sizes: Float[np.ndarray, "pair channel tile"]
) -> _Ratios:
    """Means over all tiles, each tile's share of their errors, and the variance that hides.

    The shares add up to zero, so those of few tiles are too small: for k tiles of one size by
    k / (k - 1) in variance. Where a mask lies in fewer than three tiles its mean is held to have
    at least the variance of so many independent tiles.
    """
    total = np.maximum(sizes.sum(-1, dtype=np.float64), 1)
    means = sums.sum(-1, dtype=np.float64) / total
    shares = (sums - means[..., None] * sizes) / total[..., None]
    squares = np.maximum((sizes.astype(np.float64) ** 2).sum(-1), 1)
    tiles = np.maximum(total**2 / squares, 1)
    shares *= np.sqrt(tiles / np.maximum(tiles - 1, 1))[..., None]
    least = np.where(tiles < _FEW_TILES, _TILE_VARIANCE / tiles, 0.0)
    return means, shares, least
