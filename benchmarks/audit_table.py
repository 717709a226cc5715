"""How often the audit is right: seeded perturbations and untouched subsets of the VNC slices.

::

    python benchmarks/audit_table.py path/to/vnc [CASES]

prints a table in Markdown. Affinities of all slices are computed once; a case takes its rows and
columns, turned where the case turns the masks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from emcache.audit.affinity import AS_THEY_ARE, ORIENTATIONS, Scratch
from emcache.audit.findings import Verdict
from emcache.audit.pairing import Candidates, judge_pairing
from emcache.images import read_image, read_mask
from emcache.layouts import FileFacts, list_vnc

_FEWEST, _SEED = 8, 20261122

Order = Callable[[np.random.Generator, int], np.ndarray]

PERTURBATIONS: dict[str, Order] = {
    "string order": lambda _, n: np.array(sorted(range(n), key=str)),
    "reversed": lambda _, n: np.arange(n)[::-1],
    "shifted by one": lambda rng, n: np.roll(np.arange(n), rng.choice([-1, 1])),
    "random order": lambda rng, n: rng.permutation(n),
    "flipped, rotated or transposed": lambda _, n: np.arange(n),
}


def affinities(root: Path) -> dict[str, np.ndarray]:
    """Scores of every labelled slice against every mask, in every orientation."""
    listing = list_vnc(root, {}, lambda _: FileFacts(1, None))
    pairs = [(e.image, e.mask) for e in listing.entries if e.mask is not None]
    with Scratch(1024, 1024) as scratch:
        for image, mask in pairs:
            scratch.add(read_image(image), read_mask(mask) >= 128)
        return {name: scratch.affinity(name) for name in ORIENTATIONS}


def combined(first: str, then: str) -> str:
    """The orientation that two orientations make, one after the other."""
    probe = np.arange(4).reshape(2, 2)
    turned = ORIENTATIONS[then](ORIENTATIONS[first](probe))
    return next(name for name, turn in ORIENTATIONS.items() if (turn(probe) == turned).all())


def case(
    scores: dict[str, np.ndarray], rng: np.random.Generator, kind: str | None
) -> tuple[Verdict, bool]:
    """Judge one perturbed (or untouched) subset: the verdict, and whether the truth came back."""
    whole = len(scores[AS_THEY_ARE][0])
    while True:
        count = int(rng.integers(_FEWEST, whole + 1))
        order = np.arange(count) if kind is None else PERTURBATIONS[kind](rng, count)
        turned = kind is not None and kind.startswith("flipped")
        # A subset that the perturbation leaves as it is would be an untouched one.
        if kind is None or turned or (order != np.arange(count)).any():
            break
    slices = np.sort(rng.choice(whole, count, replace=False))
    turn = list(ORIENTATIONS)[int(rng.integers(1, len(ORIENTATIONS)))] if turned else AS_THEY_ARE
    names = [str(place) for place in range(count)]
    judgement = judge_pairing(
        Candidates([f"{n}.tif" for n in names], [f"{n}.png" for n in names], names),
        lambda orientation: scores[combined(turn, orientation)][:, slices][:, :, slices[order]],
        tuple(ORIENTATIONS),
    )
    truth = [f"{place}.png" for place in np.argsort(order)]
    recovered = list(judgement.pairing.assignment.values()) == truth
    return judgement.check.verdict, recovered


def main(root: Path, cases: int) -> None:
    """Print the table."""
    scores = affinities(root)
    rng = np.random.default_rng(_SEED)
    print("| masks | cases | fail | warn | pass | true pairing recovered |")
    print("| --- | --- | --- | --- | --- | --- |")
    total: list[tuple[Verdict, bool]] = []
    for kind in PERTURBATIONS:
        results = [case(scores, rng, kind) for _ in range(cases // len(PERTURBATIONS))]
        total += results
        print(_row(kind, results))
    print(_row("all perturbations", total))
    print(_row("untouched", [case(scores, rng, None) for _ in range(cases)]))


def _row(name: str, results: list[tuple[Verdict, bool]]) -> str:
    verdicts = [verdict for verdict, _ in results]
    counts = [verdicts.count(v) for v in (Verdict.FAIL, Verdict.WARN, Verdict.PASS)]
    recovered = sum(found for _, found in results)
    return f"| {name} | {len(results)} | " + " | ".join(map(str, [*counts, recovered])) + " |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
