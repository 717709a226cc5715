"""What the audit says of data that is wrong in other ways than by its order, and of right data.

::

    python benchmarks/audit_wrong_data.py path/to/data wrong
    python benchmarks/audit_wrong_data.py path/to/data right MADE_UP

``path/to/data`` holds ``vnc``, ``lucchi++`` and ``fib25``. Prints Markdown: with ``wrong`` the
verdict of the check in question on real slices, harmed; with ``right`` every check's verdicts on
untouched real slices and on so many made-up data sets, each of a style drawn at random.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from emcache_bench.synthetic import Style, write_domain
from PIL import Image
from scipy import ndimage

from emcache.auditing.findings import Audit
from emcache.auditing.run import audit_dataset
from emcache.data.dataset import load_dataset
from emcache.data.images import read_image, read_mask
from emcache.data.plane import Plane
from emcache.data.register import add_dataset
from emcache.errors import EmcacheError
from emcache.findings import Verdict
from emcache.progress import Quiet
from emcache.storage.workspace import init_workspace

_SEED = 20261126
Picture = np.ndarray
Pairs = list[tuple[Picture, Picture]]
MASKED = {"images": "images/*.png", "masks": "masks/*.png"}
VERDICTS = list(Verdict)


def scaled(mask: Picture, by: float) -> Picture:
    """Scaled about the centre, on a canvas of the same size."""
    centre = (np.array(mask.shape) - 1) / 2
    found = ndimage.affine_transform(
        mask.astype(float), np.full(2, 1 / by), offset=centre * (1 - 1 / by), order=1
    )
    return np.where(found >= 128, 255, 0).astype(np.uint8)


def in_a_corner(mask: Picture, by: float) -> Picture:
    """Scaled down, at the top left of a canvas of the same size."""
    rows, columns = (int(side * by) for side in mask.shape)
    small = np.asarray(Image.fromarray(mask).resize((columns, rows), Image.Resampling.NEAREST))
    canvas = np.zeros_like(mask)
    canvas[:rows, :columns] = small
    return canvas


def cut(mask: Picture, border: int) -> Picture:
    """Without its border, scaled to the size that it had."""
    inner = Image.fromarray(mask[border:-border, border:-border])
    return np.asarray(inner.resize(mask.shape[::-1], Image.Resampling.NEAREST))


def numbered(mask: Picture) -> Picture:
    """Instance labels 11, 22 and so on, as they come."""
    labels, count = ndimage.label(mask >= 128)
    values = np.concatenate([[0], 11 * (np.arange(count) % 22 + 1)])
    return values[labels].astype(np.uint8)


def hardly(pairs: Pairs) -> Pairs:
    """Every third mask with three of its pixels."""
    harmed = []
    for place, (image, mask) in enumerate(pairs):
        if place % 3 == 0:
            rows, columns = np.nonzero(mask >= 128)
            mask = np.zeros_like(mask)
            mask[rows[:3], columns[:3]] = 255
        harmed.append((image, mask))
    return harmed


def each(harm: Callable[[Picture], Picture]) -> Callable[[Pairs], Pairs]:
    """Harm every mask."""
    return lambda pairs: [(image, harm(mask)) for image, mask in pairs]


HARMS: dict[str, tuple[str, Callable[[Pairs], Pairs]]] = {
    "inverted": ("foreground", each(lambda mask: 255 - mask)),
    "images and masks exchanged": ("looks", lambda pairs: [(m, i) for i, m in pairs]),
    "images in place of masks": ("looks", lambda pairs: [(i, 255 - i) for i, _ in pairs]),
    "instance labels": ("grey values", each(numbered)),
    "hardly any foreground": ("empty masks", hardly),
    "moved by 4 and 2 pixels": ("alignment", each(lambda m: np.roll(m, (4, -2), (0, 1)))),
    "moved by 8 and 4 pixels": ("alignment", each(lambda m: np.roll(m, (8, -4), (0, 1)))),
    "moved by 40 and 20 pixels": ("alignment", each(lambda m: np.roll(m, (40, -20), (0, 1)))),
    "border of 8 cut off": ("alignment", each(lambda mask: cut(mask, 8))),
    "border of 32 cut off": ("alignment", each(lambda mask: cut(mask, 32))),
    "scaled by 0.8": ("alignment", each(lambda mask: scaled(mask, 0.8))),
    "scaled by 1.25": ("alignment", each(lambda mask: scaled(mask, 1.25))),
    "half as large, in a corner": ("alignment", each(lambda mask: in_a_corner(mask, 0.5))),
}


def audit(pairs: Pairs) -> Audit | str:
    """Write, add and audit; what adding says where it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True)
        for place, both in enumerate(pairs):
            for name, pixels in zip(("images", "masks"), both, strict=True):
                Image.fromarray(pixels).save(root / name / f"{place}.png", compress_level=1)
        return audit_folder(Path(folder) / "workspace", root, MASKED)


def audit_folder(place: Path, root: Path, options: dict[str, str]) -> Audit | str:
    """Add a folder to a new workspace, and audit it."""
    workspace, _ = init_workspace(place)
    try:
        add_dataset(workspace, "d", "folder", root, options, Quiet())
        return audit_dataset(workspace, load_dataset(workspace, "d"), Quiet())[0]
    except EmcacheError as error:
        return str(error)


def real_sets(data: Path) -> dict[str, list[Pairs]]:
    """Subsets of real slices, by what they are."""
    random = np.random.default_rng(_SEED)
    vnc = [
        load(data / f"vnc/stack1/raw/{i:02d}.tif", data / f"vnc/stack1/mitochondria/{i:02d}.png")
        for i in range(20)
    ]
    sets: dict[str, list[Pairs]] = {
        "VNC": [vnc, *([vnc[i] for i in subset(random, 20, n)] for n in (8, 8, 12, 12))]
    }
    for split in ("Train", "Test"):
        numbers = sorted(int(p.stem) for p in (data / f"lucchi++/{split}_Out").glob("*.png"))
        run = [n for n in numbers if n < 40]
        starts = random.integers(0, len(run) - 12, 4).tolist()
        chosen = [run[start : start + 12] for start in starts]
        chosen += [[numbers[i] for i in subset(random, len(numbers), 24)] for _ in range(2)]
        sets[f"Lucchi++ {split.lower()}"] = [
            [
                load(
                    data / f"lucchi++/{split}_In/mask{n:04d}.png",
                    data / f"lucchi++/{split}_Out/{n}.png",
                )
                for n in some
            ]
            for some in chosen
        ]
    return sets


def subset(random: np.random.Generator, count: int, size: int) -> list[int]:
    """Some places, in order."""
    return sorted(random.choice(count, size, replace=False).tolist())


def load(image: Path, mask: Path) -> tuple[Picture, Picture]:
    """A slice and its mask, as 0 and 255."""
    return read_image(Plane(image)), np.where(read_mask(Plane(mask)) >= 128, 255, 0).astype(
        np.uint8
    )


def said(found: Audit | str, check: str) -> str:
    """The verdict of one check."""
    if isinstance(found, str):
        return "refused"
    return next(str(c.verdict) for c in found.checks if c.name == check)


def wrong(data: Path) -> None:
    """Print the verdicts on harmed slices."""
    sets = real_sets(data)
    columns = ["refused", "fail", "warn", "pass"]
    print(f"| harm | check | {' | '.join(sets)} |")
    print("| --- | --- |" + " --- |" * len(sets))
    for name, (check, harm) in HARMS.items():
        cells = []
        for some in sets.values():
            found = Counter(said(audit(harm(pairs)), check) for pairs in some)
            cells.append(", ".join(f"{found[c]} {c}" for c in columns if found[c]))
        print(f"| {name} | `{check}` | {' | '.join(cells)} |", flush=True)


def right(data: Path, made_up: int) -> None:
    """Print the verdicts on untouched slices, real and made-up."""
    for name, some in real_sets(data).items():
        table(name, [audit(pairs) for pairs in some])
    with tempfile.TemporaryDirectory() as folder:
        found = audit_folder(Path(folder) / "w", data / "fib25", {"images": "*.png"})
        table("FIB-25, without masks", [found])
    random = np.random.default_rng(_SEED)
    table("made up", [audit_made_up(random) for _ in range(made_up)])


def audit_made_up(random: np.random.Generator) -> Audit | str:
    """A made-up data set of a style drawn at random."""
    style = Style(
        cytoplasm=random.uniform(0.4, 0.8),
        membrane=random.uniform(0.1, 0.35),
        organelle=random.uniform(0.12, 0.35),
        texture=random.uniform(6, 20),
        blur=random.uniform(0.5, 2.5),
        noise=random.uniform(0.02, 0.15),
    )
    slices, size = int(random.integers(3, 25)), int(random.integers(96, 385))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        write_domain(root, style, slices, size, int(random.integers(1 << 31)))
        return audit_folder(Path(folder) / "workspace", root, MASKED)


def table(name: str, audits: Sequence[Audit | str]) -> None:
    """Print how often each check came to each verdict."""
    print(f"\n{name}: {len(audits)} data sets")
    refused = [found for found in audits if isinstance(found, str)]
    if refused:
        print(f"{len(refused)} refused: {refused[0]}")
    counts: dict[str, Counter[Verdict]] = {}
    examples: dict[str, str] = {}
    for found in audits:
        if isinstance(found, Audit):
            for check in found.checks:
                counts.setdefault(check.name, Counter())[check.verdict] += 1
                if check.verdict is not Verdict.PASS:
                    examples.setdefault(check.name, check.message)
    print(
        f"| check | {' | '.join(VERDICTS)} | the first that did not pass |\n| --- |" + " --- |" * 4
    )
    for check, verdicts in counts.items():
        row = [str(verdicts[v]) for v in VERDICTS]
        print(f"| `{check}` | {' | '.join(row)} | {examples.get(check, '')} |", flush=True)


if __name__ == "__main__":
    if sys.argv[2] == "wrong":
        wrong(Path(sys.argv[1]))
    else:
        right(Path(sys.argv[1]), int(sys.argv[3]))
