"""How often the audit is right about masks: perturbed and untouched subsets of real slices.

::

    python benchmarks/audit_table.py path/to/data orders CASES
    python benchmarks/audit_table.py path/to/data noise CASES

``path/to/data`` holds ``vnc`` and ``lucchi++``. Prints a table in Markdown: with ``orders`` so many
perturbed and so many untouched cases in all, with ``noise`` so many of each kind. Sums over tiles
are computed once for every image and mask; a case takes its rows and columns.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np
from scipy import ndimage

from emcache.auditing.orders import ANOTHER_ORDER, SOME_EXCHANGED
from emcache.auditing.pairing import Candidates, Judgement, Pairs, judge_pairing
from emcache.auditing.scratch import AS_THEY_ARE, ORIENTATIONS, Pair, Places, Scratch, Tiling
from emcache.data.images import read_image, read_mask
from emcache.data.layouts import FileFacts, list_vnc
from emcache.data.plane import Plane
from emcache.findings import Verdict

_SEED = 20261126
Rng = np.random.Generator
SPLIT = " in split test"
TURNED = "masks turned"
EXCHANGED = "the masks of splits train and test exchanged"


@dataclass
class Stack:
    """Real slices, and how well each mask fits each image in each tile."""

    numbers: list[int]
    tiling: Tiling
    sums: dict[str, np.ndarray]
    """For each orientation: image, mask, channel, tile."""
    sizes: dict[str, np.ndarray]
    """For each orientation: mask, channel, tile."""


class Chosen(Scratch):
    """Some images of a stack, each with some mask: a scratch that was computed before."""

    def __init__(
        self, stack: Stack, images: Sequence[int], masks: Sequence[int], turn: str
    ) -> None:
        self.tiling = stack.tiling
        self._stack, self._turn = stack, turn
        self._rows, self._columns = np.array(images), np.array(masks)
        self._tables: dict[str, tuple[np.ndarray, ...]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def orientations(self) -> tuple[str, ...]:
        """As :attr:`Scratch.orientations`."""
        return tuple(self._stack.sums)

    def _table(self, orientation: str) -> tuple[np.ndarray, ...]:
        if orientation not in self._tables:
            turn = combined(self._turn, orientation)
            sums = self._stack.sums[turn][self._rows][:, self._columns]
            self._tables[orientation] = (
                sums - sums.mean(0, keepdims=True),
                self._stack.sizes[turn][self._columns],
                sums.mean(0),
            )
        return self._tables[orientation]

    def typical(self, masks: Places, orientation: str = AS_THEY_ARE) -> np.ndarray:
        """As :meth:`Scratch.typical`."""
        _, sizes, mean = self._table(orientation)
        halves = []
        for tiles in self.tiling.halves:
            total = np.maximum(sizes[..., tiles].sum(-1), 1)
            halves.append((mean[..., tiles].sum(-1) / total)[list(masks)].T)
        return np.stack(halves).astype(float)

    def scores(self, images: Places, masks: Places, orientation: str = AS_THEY_ARE) -> np.ndarray:
        """As :meth:`Scratch.scores`."""
        sums, sizes, _ = self._table(orientation)
        sums, sizes = sums[list(images)][:, list(masks)], sizes[list(masks)]
        halves = []
        for tiles in self.tiling.halves:
            total = np.maximum(sizes[..., tiles].sum(-1), 1)
            halves.append(np.moveaxis(sums[..., tiles].sum(-1) / total, -1, 0))
        return np.stack(halves).astype(float)

    def tile_sums(
        self, pairs: Sequence[Pair], centred: bool = True
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As :meth:`Scratch.tile_sums`."""
        for image, run in groupby(pairs, key=itemgetter(0)):
            found, sizes = [], []
            for _, mask, orientation in run:
                sums, size, mean = self._table(orientation)
                found.append(sums[image, mask] if centred else sums[image, mask] + mean[mask])
                sizes.append(size[mask])
            yield np.stack(found), np.stack(sizes)


def combined(first: str, then: str) -> str:
    """The orientation that two orientations make, one after the other."""
    probe = np.arange(4).reshape(2, 2)
    turned = ORIENTATIONS[then](ORIENTATIONS[first](probe))
    return next(name for name, turn in ORIENTATIONS.items() if (turn(probe) == turned).all())


Harm = Callable[[np.ndarray, Rng], np.ndarray]


def read_stack(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], numbers: list[int], harm: Harm
) -> Stack:
    """Compare every image with every mask, in every orientation."""
    height, width = pairs[0][0].shape
    rng = np.random.default_rng(_SEED)
    places = list(range(len(pairs)))
    sums, sizes = {}, {}
    with Scratch(height, width) as scratch:
        tiling = scratch.tiling
        for image, mask in pairs:
            scratch.add(scratch.draw(harm(image, rng), mask))
        for turn in scratch.orientations:
            every = [(image, mask, turn) for image in places for mask in places]
            # A subset takes its own mean image away.
            found = list(scratch.tile_sums(every, centred=False))
            sums[turn] = np.stack([own for own, _ in found])
            sizes[turn] = found[0][1]
    return Stack(numbers, tiling, sums, sizes)


@dataclass
class Case:
    """What was done to a subset of a stack."""

    order: np.ndarray
    """For each image the place of the mask that is declared for it."""
    turn: str
    causes: tuple[str, ...]
    """How the cause may be named: what it starts or ends with."""

    def is_named_by(self, cause: str | None) -> bool:
        """Whether this is the cause."""
        if self.turn != AS_THEY_ARE:
            return cause in ORIENTATIONS and combined(self.turn, cause) == AS_THEY_ARE
        if not self.causes:
            return cause is None
        return cause is not None and cause.startswith(self.causes) | cause.endswith(self.causes)


def _identity(n: int) -> np.ndarray:
    return np.arange(n)


def _swapped(share: float) -> Callable[[Rng, int], np.ndarray]:
    def order(rng: Rng, n: int) -> np.ndarray:
        many = max(2, round(share * n))
        # Far away: none goes to a neighbour's place, as far as there is room.
        for _ in range(1000):
            chosen = rng.choice(n, many, replace=False)
            moved = _identity(n)
            moved[chosen] = np.roll(chosen, 1)
            if (abs(moved[chosen] - chosen) >= min(6, n // 3)).all():
                return moved
        return moved

    return order


def _shift(step: int) -> Callable[[Rng, int], np.ndarray]:
    def order(rng: Rng, n: int) -> np.ndarray:
        return np.roll(_identity(n), int(rng.choice([-step, step])))

    return order


def _one_split(rng: Rng, n: int) -> np.ndarray:
    order = _identity(n)
    half = n // 2
    order[half:] = half + rng.permutation(n - half)
    return order


def first(count: int) -> int:
    """Number of the first file of a case, so that eight files have another order as text."""
    return 0 if count > 10 else 6


PERTURBATIONS: dict[str, tuple[Callable[[Rng, int], np.ndarray], tuple[str, ...]]] = {
    "string order": (
        lambda _, n: np.array(sorted(range(n), key=lambda place: str(first(n) + place))),
        ("string order",),
    ),
    "reversed": (lambda _, n: _identity(n)[::-1].copy(), ("reversed",)),
    "shifted by 1": (_shift(1), ("shifted by one", "string order")),
    "shifted by 2": (_shift(2), ("shifted by two",)),
    # In a ring of eight, five steps are three the other way, in one of ten half of it.
    "shifted by 5": (
        _shift(5),
        ("shifted by five", "shifted by three", "shifted by four", EXCHANGED),
    ),
    "random order": (lambda rng, n: rng.permutation(n), (ANOTHER_ORDER,)),
    "one split scrambled": (_one_split, (SPLIT,)),
    TURNED: (lambda _, n: _identity(n), ()),
    "5 % swapped": (_swapped(0.05), (SOME_EXCHANGED, ANOTHER_ORDER)),
    "20 % swapped": (_swapped(0.2), (SOME_EXCHANGED, ANOTHER_ORDER)),
}


@dataclass
class Tally:
    """What became of the cases of one kind."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    causes: int = 0
    """Cases whose cause was named rightly."""
    moved: int = 0
    """Masks that stand beside another slice."""
    named: int = 0
    """Of those, how many are named."""
    wrongly: int = 0
    """Slices that are named though their mask is right."""
    cannot_tell: int = 0

    def add(self, case: Case, judgement: Judgement) -> None:
        """Count one case."""
        pairing = judgement.pairing
        self.verdicts[judgement.check.verdict] += 1
        self.causes += case.is_named_by(pairing.cause)
        self.cannot_tell += "cannot tell whether" in judgement.check.message
        count = len(case.order)
        truth = set(np.flatnonzero(case.order != np.arange(count)).tolist())
        named = {int(Path(name).stem) - first(count) for name in pairing.displaced}
        self.moved += len(truth)
        self.named += len(truth & named)
        self.wrongly += len(named - truth)

    def row(self) -> list[int]:
        """Fail, warn, pass, causes, masks moved, named and named wrongly."""
        verdicts = [self.verdicts[v] for v in (Verdict.FAIL, Verdict.WARN, Verdict.PASS)]
        return [*verdicts, self.causes, self.moved, self.named, self.wrongly]


def judged(
    stack: Stack, choose: Callable[[Rng], np.ndarray], kind: str | None, rng: Rng
) -> tuple[Case, Judgement]:
    """One case: a subset of a stack with its masks put in some order, and what is said of it."""
    while True:
        slices = choose(rng)
        count = len(slices)
        order, causes = np.arange(count), ()
        if kind is not None:
            make, causes = PERTURBATIONS[kind]
            order = make(rng, count)
        # A subset that the perturbation leaves as it is would be an untouched one.
        if kind in (None, TURNED) or (order != np.arange(count)).any():
            break
    turns = list(stack.sums)
    turn = turns[int(rng.integers(1, len(turns)))] if kind == TURNED else AS_THEY_ARE
    names = [f"{first(count) + place}" for place in range(count)]
    candidates = Candidates(
        Pairs(
            [f"images/{name}.png" for name in names],
            [f"masks/{name}.png" for name in names],
            ["train"] * (count // 2) + ["test"] * (count - count // 2),
        ),
        range(count),
        [str(slices[place]) for place in order],
    )
    judgement = judge_pairing(candidates, Chosen(stack, slices, slices[order], turn))
    return Case(order, turn, causes), judgement


def unharmed(image: np.ndarray, _: Rng) -> np.ndarray:
    """The image as it is."""
    return image


def noisy(deviation: float) -> Harm:
    """Gaussian noise, in grey levels of the full-size image."""

    def harm(image: np.ndarray, rng: Rng) -> np.ndarray:
        noise = rng.normal(0, deviation, image.shape).astype(np.float32)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    return harm


def blurred(deviation: float) -> Harm:
    """Gaussian blur, in pixels of the full-size image."""

    def harm(image: np.ndarray, _: Rng) -> np.ndarray:
        return ndimage.gaussian_filter(image, deviation)

    return harm


def read_vnc(root: Path, harm: Harm = unharmed) -> Stack:
    """The 20 labelled slices of VNC."""
    listing = list_vnc(root / "vnc", {}, lambda _: FileFacts(1, None))
    entries = [(e.image, e.mask) for e in listing.entries if e.mask is not None]
    pairs = [(read_image(image), read_mask(mask) >= 128) for image, mask in entries]
    return read_stack(pairs, list(range(len(pairs))), harm)


def read_lucchi(root: Path, harm: Harm = unharmed, last: int | None = None) -> Stack:
    """Lucchi++, training slices before test slices; those numbered below ``last``."""
    pairs, numbers = [], []
    for part in ("Train", "Test"):
        for path in sorted((root / "lucchi++" / f"{part}_In").iterdir()):
            number = int(path.stem[4:])
            if last is None or number < last:
                mask = root / "lucchi++" / f"{part}_Out" / f"{number}.png"
                numbers.append(number)
                pairs.append((read_image(Plane(path)), read_mask(Plane(mask)) >= 128))
    return read_stack(pairs, numbers, harm)


Chooser = Callable[[Rng], np.ndarray]


def some(least: int, places: np.ndarray) -> Chooser:
    """Some of the slices at these places, in order."""

    def choose(rng: Rng) -> np.ndarray:
        count = int(rng.integers(least, len(places) + 1))
        return np.sort(rng.choice(places, count, replace=False))

    return choose


def runs(stack: Stack, length: int) -> Chooser:
    """Neighbouring slices of one volume, or half of them of each."""
    volume = len(stack.numbers) // 2
    neighbours = sum(a + 1 == b for a, b in pairwise(stack.numbers[:volume])) + 1

    def choose(rng: Rng) -> np.ndarray:
        if length > neighbours:
            return np.concatenate([np.arange(length // 2), volume + np.arange(length // 2)])
        start = int(rng.integers(0, neighbours - length + 1))
        return start + volume * int(rng.integers(2)) + np.arange(length)

    return choose


def choosers(root: Path) -> Iterator[tuple[str, Stack, Chooser]]:
    """Kinds of subsets of each data set."""
    vnc = read_vnc(root)
    yield "VNC, 8 to 20 slices", vnc, some(8, np.arange(len(vnc.numbers)))
    lucchi = read_lucchi(root)
    for length in (8, 20, 40, 80):
        yield f"Lucchi++, {length} neighbours", lucchi, runs(lucchi, length)
    every = np.array([place for place, number in enumerate(lucchi.numbers) if number % 4 == 0])
    yield f"Lucchi++, 8 to {len(every)} of every fourth", lucchi, some(8, every)


COLUMNS = ("slices", "masks", "cases", "fail", "warn", "pass", "cause right")
MORE_COLUMNS = ("masks moved", "named", "named wrongly")


def table(root: Path, cases: int) -> None:
    """How often the audit is right, by data set and by what was done to the masks."""
    rng = np.random.default_rng(_SEED)
    _print_row(*COLUMNS, *MORE_COLUMNS)
    _print_row(*["---"] * len(COLUMNS + MORE_COLUMNS))
    for name, stack, choose in choosers(root):
        for kind in [*PERTURBATIONS, None]:
            times = cases // 6 if kind is None else cases // 6 // len(PERTURBATIONS)
            tally = Tally()
            for _ in range(times):
                tally.add(*judged(stack, choose, kind, rng))
            _print_row(name, kind or "untouched", times, *tally.row())


def breaking(root: Path, cases: int) -> None:
    """What happens as noise or blur is added until nothing can be told."""
    rng = np.random.default_rng(_SEED)
    _print_row("slices", "harm", *COLUMNS[1:6], "cannot tell", "cause right", *MORE_COLUMNS)
    _print_row(*["---"] * (len(COLUMNS + MORE_COLUMNS) + 2))
    harms = [(f"noise {d}", noisy(d)) for d in (40, 80, 160, 320, 640, 1280)]
    harms += [(f"blur {d} px", blurred(d)) for d in (4, 8, 16, 32, 64)]
    for harm_name, harm in harms:
        vnc, lucchi = read_vnc(root, harm), read_lucchi(root, harm, last=40)
        kinds = ("string order", "shifted by 1", "20 % swapped", None)
        for name, stack, choose in (
            ("VNC, 20 slices", vnc, some(20, np.arange(20))),
            ("Lucchi++, 40 neighbours", lucchi, runs(lucchi, 40)),
            ("Lucchi++, 12 neighbours", lucchi, runs(lucchi, 12)),
        ):
            for kind in kinds:
                tally = Tally()
                for _ in range(cases):
                    tally.add(*judged(stack, choose, kind, rng))
                verdicts = tally.row()
                _print_row(
                    name,
                    harm_name,
                    kind or "untouched",
                    cases,
                    *verdicts[:3],
                    tally.cannot_tell,
                    *verdicts[3:],
                )


def _print_row(*values: object) -> None:
    print("| " + " | ".join(map(str, values)) + " |", flush=True)


def main(root: Path, what: str, cases: int) -> None:
    """Print one of the two tables."""
    if what == "noise":
        breaking(root, cases)
    else:
        table(root, cases)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
