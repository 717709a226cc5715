"""Checks of a dataset that need no comparison of images with masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

from emcache.audit.findings import Check, Verdict
from emcache.datasets import Dataset, Slice

_NAMED = 3
_MUCH_BRIGHTER = 3.0
_GREY_LEVELS = 10.0
_RARE = 5.0
_MOST_FOREGROUND = 0.5


@dataclass(frozen=True, slots=True)
class Brightness:
    """Mean grey value of one slice, 0 to 255."""

    slice: Slice
    mean: float


def check_content(dataset: Dataset, brightness: Sequence[Brightness]) -> list[Check]:
    """Everything but the pairing.

    Args:
        dataset: What is checked.
        brightness: Of the slices that were read.
    """
    labelled = dataset.labelled
    checks = [_sizes(dataset), _duplicates(dataset), _voxel_size(dataset)]
    if labelled:
        checks += [
            _empty_masks(labelled),
            _foreground(labelled),
            _grey_values(dataset),
            _leakage(dataset),
            _brightness(brightness),
        ]
    return checks


def _sizes(dataset: Dataset) -> Check:
    sizes = Counter((item.height, item.width) for item in dataset.slices)
    words = ", ".join(f"{n} of {rows} x {columns}" for (rows, columns), n in sizes.most_common())
    if len(sizes) == 1:
        return Check("sizes", Verdict.PASS, f"All {len(dataset.slices)} slices: {words} pixels.")
    return Check(
        "sizes",
        Verdict.WARN,
        f"Slices of {len(sizes)} sizes ({words} pixels): at one longest edge they are scaled "
        f"differently; see --pixel-size.",
    )


def _duplicates(dataset: Dataset) -> Check:
    names: dict[str, list[str]] = {}
    for item in dataset.slices:
        names.setdefault(item.pixel_sha256, []).append(item.id)
    twice = [ids for ids in names.values() if len(ids) > 1]
    if not twice:
        return Check("duplicates", Verdict.PASS, "No two slices have the same pixels.")
    return Check(
        "duplicates",
        Verdict.FAIL,
        f"The same pixels stand under several names: {_listed([' = '.join(t) for t in twice])}; "
        f"remove all but one, or scores count a slice twice and test on what was trained.",
    )


def _voxel_size(dataset: Dataset) -> Check:
    size = dataset.voxel_size_nm
    if size is None:
        what = "The voxel size is unknown; state it with --voxel-size to use --pixel-size."
    else:
        what = f"Voxels of {' x '.join(f'{s:g}' for s in size)} nm (z, y, x)."
    return Check("voxel size", Verdict.PASS, what)


def _empty_masks(labelled: Sequence[Slice]) -> Check:
    empty = [item.id for item in labelled if item.foreground_pixels == 0]
    full = [item.id for item in labelled if item.foreground_pixels == item.height * item.width]
    found = []
    if empty:
        found.append(f"{len(empty)} masks without foreground ({_listed(empty)})")
    if full:
        found.append(f"{len(full)} masks of nothing but foreground ({_listed(full)})")
    if not found:
        return Check("empty masks", Verdict.PASS, "Every mask has foreground and background.")
    return Check(
        "empty masks",
        Verdict.WARN,
        f"Found {' and '.join(found)}; check that these slices are annotated.",
    )


def _foreground(labelled: Sequence[Slice]) -> Check:
    shares = {item.id: item.foreground_fraction or 0.0 for item in labelled}
    low, middle, high = min(shares.values()), median(shares.values()), max(shares.values())
    facts = f"Foreground covers {low:.1%} to {high:.1%} of a slice, {middle:.1%} at the median"
    odd = [name for name, share in shares.items() if middle and share > _RARE * middle]
    if odd:
        return Check(
            "foreground",
            Verdict.WARN,
            f"{facts}; far more than usual in {_listed(odd)}: look there.",
        )
    if middle > _MOST_FOREGROUND:
        return Check(
            "foreground",
            Verdict.WARN,
            f"{facts}, more than half: if what is labelled is small, as mitochondria are, the "
            f"masks are inverted, and a score on them says little; invert them, or name the values "
            f"with --classes.",
        )
    return Check("foreground", Verdict.PASS, f"{facts}.")


def _grey_values(dataset: Dataset) -> Check:
    pixels = sum(item.height * item.width for item in dataset.labelled)
    grey = dataset.grey_pixels
    if dataset.classes.values is not None:
        return Check("grey values", Verdict.PASS, "Every mask pixel belongs to a named class.")
    lost = [s.id for s in dataset.labelled if s.grey_pixels and not s.foreground_pixels]
    if 2 * len(lost) >= len(dataset.labelled):
        return Check(
            "grey values",
            Verdict.FAIL,
            f"{len(lost)} of {len(dataset.labelled)} masks have values above 0 but none of "
            f"at least {dataset.classes.threshold} ({_listed(lost)}): the threshold empties "
            f"them; if they are instance labels, add the dataset with --mask-threshold 1.",
        )
    if not grey:
        return Check("grey values", Verdict.PASS, "No mask pixel lies between 0 and 255.")
    return Check(
        "grey values",
        Verdict.WARN,
        f"{grey} mask pixels ({grey / pixels:.2g} of all) lie strictly between 0 and 255; those of "
        f"at least {dataset.classes.threshold} count as foreground: set --mask-threshold if "
        f"that is not what they mean.",
    )


def _leakage(dataset: Dataset) -> Check:
    """Test slices with a training slice right before or behind them, in the same folder."""
    leaking = []
    tested = 0
    for before, item, behind in _neighbours(dataset.labelled):
        if item.split != "test":
            continue
        tested += 1
        if any(other is not None and other.split == "train" for other in (before, behind)):
            leaking.append(item.id)
    if not leaking:
        return Check("leakage", Verdict.PASS, "No test slice lies beside a training slice.")
    return Check(
        "leakage",
        Verdict.WARN,
        f"{len(leaking)} of {tested} test slices lie beside a training slice ({_listed(leaking)}); "
        f"in a stack neighbours look alike, and scores are higher than on new tissue: split by "
        f"blocks where that matters.",
    )


def _neighbours(
    slices: Sequence[Slice],
) -> list[tuple[Slice | None, Slice, Slice | None]]:
    def beside(item: Slice, place: int) -> Slice | None:
        if not 0 <= place < len(slices):
            return None
        other = slices[place]
        return other if other.image.stack == item.image.stack else None

    return [(beside(s, place - 1), s, beside(s, place + 1)) for place, s in enumerate(slices)]


def _brightness(brightness: Sequence[Brightness]) -> Check:
    """Splits that were imaged differently."""
    means: dict[str, list[float]] = {}
    for item in brightness:
        means.setdefault(item.slice.split or "all", []).append(item.mean)
    facts = ", ".join(f"{split} {mean(values):.0f}" for split, values in means.items())
    if len(means) >= 2 and min(map(len, means.values())) >= 2:
        centres = [mean(values) for values in means.values()]
        gap = max(centres) - min(centres)
        spread = max(stdev(values) for values in means.values())
        if gap > max(_MUCH_BRIGHTER * spread, _GREY_LEVELS):
            return Check(
                "brightness",
                Verdict.WARN,
                f"The splits differ in mean brightness ({facts} of 255); check that they were "
                f"imaged alike.",
            )
    return Check("brightness", Verdict.PASS, f"Mean brightness by split: {facts} of 255.")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
