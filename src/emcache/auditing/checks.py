"""Checks of a dataset that need no comparison of images with masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, median, stdev

from emcache.auditing.alignment import CLEAR, FITS, Placement
from emcache.auditing.findings import Check
from emcache.auditing.looks import Looks, MaskAreas, check_looks
from emcache.data.classes import DEFAULT_THRESHOLD
from emcache.data.dataset import Dataset, Slice
from emcache.data.pairing import Scramble
from emcache.findings import Verdict

_NAMED = 3
_MUCH_BRIGHTER = 3.0
_GREY_LEVELS = 10.0
_RARE = 5.0
_MOST_FOREGROUND = 0.5
_ISLANDS = 4
_ONE_AREA = 0.95
_NEARLY_EMPTY = 0.01
_MOSTLY_LOST = 10
_INSTANCES = 0.25
_FAR = 0.5
_WRONG_MARGIN = 0.5
_NO_SCALE = 0.004


@dataclass(frozen=True, slots=True)
class Brightness:
    """Mean grey value of one slice, 0 to 255."""

    slice: Slice
    mean: float


def check_content(dataset: Dataset, brightness: Sequence[Brightness], looks: Looks) -> list[Check]:
    """Everything but the comparison of masks with images.

    Args:
        dataset: What is checked.
        brightness: Of the slices that were read.
        looks: Of some slices and their masks.
    """
    labelled = dataset.labelled
    checks = [_sizes(dataset), _duplicates(dataset), _voxel_size(dataset), check_looks(looks)]
    if dataset.scramble is not None:
        checks.append(_scramble(dataset.scramble))
    if labelled:
        checks += [
            _empty_masks(labelled),
            _foreground(labelled, looks.areas),
            _grey_values(dataset, looks.areas),
            _leakage(dataset),
            _brightness(brightness),
        ]
    return checks


def check_alignment(placement: Placement | None) -> Check:
    """Whether masks lie on their images as they are.

    Args:
        placement: Where they fit best; None where nothing could be compared.
    """
    if placement is None:
        return Check("alignment", Verdict.PASS, "No slice is large enough to be compared.")
    if placement.clear < CLEAR:
        return Check(
            "alignment",
            Verdict.WARN,
            "Cannot tell whether the masks lie where they belong: light does not change across "
            "their outlines in one direction.",
        )
    if placement.kept >= FITS and placement.kept_by_margin < _WRONG_MARGIN:
        side = "outside" if placement.margin > 0 else "inside"
        return Check(
            "alignment",
            Verdict.WARN,
            f"The masks lie where they belong, but their outlines are about "
            f"{abs(placement.margin):.0f} pixels {side} of what they go around; check how they "
            f"were drawn or smoothed.",
        )
    if placement.kept >= FITS:
        return Check("alignment", Verdict.PASS, "The masks fit best where they are.")
    return Check(
        "alignment",
        Verdict.FAIL if placement.kept < _FAR else Verdict.WARN,
        f"The masks fit better when they are {_in_words(placement)}: {placement.distance:.1f} "
        f"pixels away on average; check how images and masks were cut or scaled.",
    )


def _in_words(placement: Placement) -> str:
    words = []
    down, right = placement.move
    rows, columns = placement.scale
    if max(abs(rows - 1), abs(columns - 1)) > _NO_SCALE:
        by = f"{rows:.3g}" if abs(rows - columns) < _NO_SCALE else f"{rows:.3g} x {columns:.3g}"
        words.append(f"scaled by {by} about the centre")
    moves = [
        f"{abs(by):.0f} pixels {name}"
        for by, name in (
            (down, "down" if down > 0 else "up"),
            (right, "right" if right > 0 else "left"),
        )
        if round(abs(by)) >= 1
    ]
    if moves:
        words.append(f"moved by {' and '.join(moves)}")
    return " and ".join(words) or "moved a little"


def _scramble(scramble: Scramble) -> Check:
    """A wrong pairing that was asked for fails, whatever the pixels say."""
    return Check(
        "scramble",
        Verdict.FAIL,
        f"By the dataset's own table, {scramble.words}: take scramble out for scores that mean "
        f"something.",
    )


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
    middle = median([item.foreground_pixels or 0 for item in labelled])
    faint = [
        item.id
        for item in labelled
        if item.foreground_pixels
        and (
            item.foreground_pixels < _NEARLY_EMPTY * middle
            or (item.grey_pixels or 0) > _MOSTLY_LOST * item.foreground_pixels
        )
    ]
    found = []
    if faint:
        found.append(f"{len(faint)} masks with hardly any foreground ({_listed(faint)})")
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


def _foreground(labelled: Sequence[Slice], areas: Sequence[MaskAreas]) -> Check:
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
    if middle > _MOST_FOREGROUND and _is_inverted(areas):
        return Check(
            "foreground",
            Verdict.FAIL,
            f"{facts}, and the background is many islands in one area of foreground: the masks are "
            f"inverted; invert them, or name the values with --classes.",
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


def _is_inverted(areas: Sequence[MaskAreas]) -> bool:
    """Whether what is called background consists of things, and the foreground of what is between.

    Cells with membranes between them are the other way round: many areas of foreground.
    """
    if not areas:
        return False
    return (
        median(area.holes for area in areas) >= _ISLANDS
        and median(area.largest for area in areas) >= _ONE_AREA
    )


def _grey_values(dataset: Dataset, areas: Sequence[MaskAreas]) -> Check:
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
            f"them; if they are instance labels, add the dataset with --instances.",
        )
    below = sum((area.lost for area in areas), Counter[int]())
    # Another threshold than the usual one was chosen by somebody who knows the values.
    by_default = dataset.classes.threshold == DEFAULT_THRESHOLD
    if by_default and below.total() > _INSTANCES * sum(area.not_zero for area in areas):
        values = [str(value) for value, _ in below.most_common()]
        return Check(
            "grey values",
            Verdict.FAIL,
            f"Whole areas of the masks have values below {dataset.classes.threshold} "
            f"({_listed(values)}) and count as background: if they are instance labels, add the "
            f"dataset with --instances; if they are classes, name them with --classes.",
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


def compare_datasets(datasets: Sequence[Dataset], same_scale: bool) -> list[str]:
    """Sentences about datasets that stand in one training.

    Args:
        datasets: All of them.
        same_scale: Whether they are brought to one physical scale.
    """
    notes = []
    for one, other in combinations(datasets, 2):
        names = f"{one.name} and {other.name}"
        shared = {s.pixel_sha256 for s in one.slices} & {s.pixel_sha256 for s in other.slices}
        if shared:
            notes.append(
                f"Warning: {len(shared)} slices of {names} have the same pixels; one may train on "
                f"what the other tests."
            )
        sizes = one.voxel_size_nm, other.voxel_size_nm
        if sizes[0] and sizes[1] and sizes[0][1:] != sizes[1][1:] and not same_scale:
            pitches = " and ".join(" x ".join(f"{s:g}" for s in size[1:]) for size in sizes if size)
            notes.append(
                f"Note: the pixels of {names} measure {pitches} nm; --pixel-size brings them to "
                f"one scale, the first suspect in any domain gap."
            )
    return notes
