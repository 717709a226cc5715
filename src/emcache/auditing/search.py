"""Which mask belongs to each slice, as far as both halves of the picture say the same.

Few slices are compared with all masks at once. Many are compared in blocks of neighbours, and those
whose own mask did not win there with every mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used
from jaxtyping import Bool, Float64, Int64

from emcache.auditing.evidence import VARIANTS, Halves, compare_halves
from emcache.auditing.scratch import AS_THEY_ARE, Scratch

MOST_AT_ONCE = 400
"""So many slices are compared with all masks at once."""

_WELL_FITTING = 0.25
"""A mask that fits less well than this share of what is usual fits like any other."""

_BLOCK = 128
_PROBED = 4
_MOST_SUSPECTS = 1000
_YARDSTICK = 100
_MASKS_AT_ONCE = 1024
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Found:
    """What the halves say of every slice."""

    agreed: Int64[np.ndarray, " image"]
    """The mask that both halves give to the slice; -1 where they differ."""
    gains: Float64[np.ndarray, " image"]
    """How much better it fits than the declared mask, as a share of how well masks fit here, on
    average over the slices that have each other's masks; the smaller of both halves; 0 where they
    differ."""
    searched: Bool[np.ndarray, " image"]
    """Slices that were compared with every mask that may be theirs: all, or of very many some."""
    variant: int
    """Place in :data:`emcache.auditing.evidence.VARIANTS`."""
    orientation: str
    """How the masks were turned."""
    shown: Int64[np.ndarray, " shown"]
    """A run of slices that were compared with each other."""
    scores: Float64[np.ndarray, "shown shown"]
    """Their centred scores, high where image and mask fit."""

    @property
    def count(self) -> int:
        """How many slices the halves agree on."""
        return int((self.agreed >= 0).sum())

    @property
    def share(self) -> float:
        """Share of the slices that the halves agree on."""
        return self.count / max(int(self.searched.sum()), 1)


def search(
    scratch: Scratch, names: Int64[np.ndarray, " mask"], orientation: str = AS_THEY_ARE
) -> Found:
    """Compare slices with masks.

    Args:
        scratch: The slices.
        names: For each mask the first place at which its pixels stand.
        orientation: How masks are turned.
    """
    count = len(scratch)
    pieces = 1 if count <= MOST_AT_ONCE else -(-count // _BLOCK)
    blocks = np.array_split(np.arange(count), pieces)
    whole = _compare(scratch, blocks[0], orientation) if pieces == 1 else None
    variant = whole.variant if whole else _variant(scratch, blocks, orientation)
    agreed = np.full(count, -1)
    gains, own_fits = np.zeros(count), np.full(count, np.nan)
    shown, scores, most = blocks[0], None, -1
    for block in blocks:
        halves = whole or _compare(scratch, block, orientation, variant)
        local = _by_pixels(halves, names[block])
        agreed[block] = np.where(local >= 0, block[local], -1)
        gains[block], own_fits[block] = _fits(halves, local)
        moved = int((local != np.arange(len(block))).sum())
        if moved > most:
            shown, scores, most = block, halves.scores.mean(axis=0), moved
    assert scores is not None  # noqa: S101 - there is at least one block
    searched = np.ones(count, dtype=bool)
    if pieces > 1:
        places = np.arange(count)
        doubtful = (agreed != places) | ~(own_fits >= _WELL_FITTING)
        suspects = spread(np.flatnonzero(doubtful), _MOST_SUSPECTS)
        searched[doubtful] = False
        searched[suspects] = True
        agreed[~searched] = -1
        settled = spread(np.flatnonzero(~doubtful), _YARDSTICK)
        _search_everywhere(scratch, names, orientation, variant, suspects, settled, agreed, gains)
    return Found(agreed, gains, searched, variant, orientation, shown, scores)


def _compare(
    scratch: Scratch,
    block: Int64[np.ndarray, " image"],
    orientation: str,
    variant: int | None = None,
) -> Halves:
    scores = scratch.scores(block, block, orientation)
    return compare_halves(scores, scratch.typical(block, orientation), variant)


def _variant(scratch: Scratch, blocks: Sequence[Int64[np.ndarray, _]], orientation: str) -> int:
    """The variant under which the halves agree most, by some of the blocks."""
    totals = np.zeros(len(VARIANTS))
    for place in np.linspace(0, len(blocks) - 1, _PROBED).astype(int):
        halves = _compare(scratch, blocks[place], orientation)
        totals[halves.variant] += halves.count
    return int(totals.argmax())


def _by_pixels(halves: Halves, names: Int64[np.ndarray, " mask"]) -> Int64[np.ndarray, " image"]:
    """What the halves agree on, where masks with the same pixels are one mask."""
    first, second = np.where(halves.choices >= 0, names[halves.choices], -1)
    own = names == first
    chosen = np.where(own, np.arange(len(names)), halves.choices[0])
    agreed: Int64[np.ndarray, " image"] = np.where(first == second, chosen, -1)
    return agreed


def _fits(
    halves: Halves, agreed: Int64[np.ndarray, " image"]
) -> tuple[Float64[np.ndarray, " image"], Float64[np.ndarray, " image"]]:
    places = np.arange(len(agreed))
    known = agreed >= 0
    fits = halves.fits()
    own = fits[:, places, places]
    each = np.where(known, fits[:, places, np.maximum(agreed, 0)] - own, 0.0)
    # Scores are centred, so what one slice gains may stand with the one it exchanged masks with.
    links = places[known], agreed[known]
    graph = scipy.sparse.coo_array(
        (np.ones(len(links[0])), links), shape=(len(places), len(places))
    )
    _, circle = scipy.sparse.csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(circle, known)
    gains = np.stack([np.bincount(circle, half) / np.maximum(sizes, 1) for half in each])
    gains = gains.min(axis=0)[circle] * known
    if 2 * known.sum() < len(agreed):
        return gains, np.full(len(agreed), np.nan)
    return gains, own.mean(axis=0)


def _search_everywhere(
    scratch: Scratch,
    names: Int64[np.ndarray, " mask"],
    orientation: str,
    variant: int,
    suspects: Int64[np.ndarray, " suspect"],
    settled: Int64[np.ndarray, " settled"],
    agreed: Int64[np.ndarray, " image"],
    gains: Float64[np.ndarray, " image"],
) -> None:
    """Compare slices in doubt with every mask, and write what both halves say of them.

    A mask's scores are compared with those that it has on other slices, which tells how much a
    small mask's mean is worth.
    """
    if not len(suspects):
        return
    rows = np.concatenate([suspects, settled])
    best = np.full((2, len(rows)), -np.inf)
    choices = np.zeros((2, len(rows)), dtype=np.int64)
    own = np.zeros((2, len(rows)))
    weights = np.array(VARIANTS[variant])
    for start in range(0, len(scratch), _MASKS_AT_ONCE):
        masks = np.arange(start, min(start + _MASKS_AT_ONCE, len(scratch)))
        scores = scratch.scores(rows, masks, orientation)
        scores = scores - scores.mean(axis=2, keepdims=True)
        scores /= np.maximum(scores.std(axis=2, keepdims=True), _TINY)
        mixed = np.einsum("c,hcij->hij", weights, scores)
        here = mixed.argmax(axis=2)
        values = np.take_along_axis(mixed, here[..., None], axis=2)[..., 0]
        better = values > best
        best = np.where(better, values, best)
        choices = np.where(better, masks[here], choices)
        inside = (rows >= start) & (rows < start + len(masks))
        own[:, inside] = mixed[:, inside, rows[inside] - start]
    same = names[choices[0]] == names[choices[1]]
    typical = np.median(best[:, same], axis=1) if same.any() else np.ones(2)
    gain = ((best - own) / np.maximum(typical, _TINY)[:, None]).min(axis=0)
    for place, image in enumerate(suspects):
        if same[place]:
            mine = names[choices[0, place]] == names[image]
            agreed[image] = image if mine else choices[0, place]
            gains[image] = 0.0 if mine else gain[place]
        else:
            agreed[image], gains[image] = -1, 0.0


def spread(places: Int64[np.ndarray, " place"], most: int) -> Int64[np.ndarray, " kept"]:
    """All of some places, or so many of them at even distances."""
    if len(places) <= most:
        return places
    chosen: Int64[np.ndarray, " place"] = places[np.linspace(0, len(places) - 1, most).astype(int)]
    return chosen
