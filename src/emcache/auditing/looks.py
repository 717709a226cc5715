"""Whether images look like images, and masks like masks.

In a micrograph hardly two neighbouring pixels are equal, even where it is smooth; in a mask nearly
all are. So the share of neighbours that differ tells one from the other, whatever the values stand
for. Instance labels are told from the grey rims of a smoothed mask by their insides: rims have
none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import scipy  # its parts are imported where they are first used
from jaxtyping import Bool, Integer

from emcache.auditing.findings import Check
from emcache.data.dataset import Dataset, Slice
from emcache.data.images import read_image, read_mask
from emcache.data.sections import centre
from emcache.findings import Verdict

MOST = 8
"""Slices that are looked at, at even distances."""

_MASK_LIKE = 0.1
"""Masks of mitochondria have 0.005, of membranes 0.05; slices with a blur of 32 pixels 0.2."""
_IMAGE_LIKE = 0.3
_SPECK = 2e-4
_MOST_VALUES = 16
"""A slice of so few grey values has the look of a mask, too."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like."""

    changes: float
    """Share of pixels that differ from the next one in their row, but for those of flat borders."""
    values: int
    """Different values."""

    @property
    def mask_like(self) -> bool:
        """Whether it consists of flat areas."""
        return self.changes <= _MASK_LIKE

    @property
    def image_like(self) -> bool:
        """Whether hardly two neighbouring pixels are equal."""
        return self.changes >= _IMAGE_LIKE


def look_at(pixels: Integer[np.ndarray, "row col"]) -> Look:
    """Look at an image or mask; rows and columns of one value at its borders do not count."""
    differ = pixels[:, 1:] != pixels[:, :-1]
    rows, columns = differ.any(1), differ.any(0)
    if not rows.any():
        return Look(0.0, 1)
    first, last = np.flatnonzero(rows)[[0, -1]]
    left, right = np.flatnonzero(columns)[[0, -1]]
    part = differ[first : last + 1, left : right + 1]
    return Look(float(part.mean()), len(np.unique(pixels)))


def check_looks(looks: Looks) -> Check:
    """Whether images and masks have been taken for each other."""
    # Pictures of one value say nothing.
    images, masks = (
        [one for one in some if one.values > 1] for some in (looks.images, looks.masks)
    )
    if not images:
        return Check("looks", Verdict.PASS, "No slice has more than one grey value.")
    flat = median(look.changes for look in images)
    facts = f"{flat:.0%} of neighbouring pixels differ in images"
    few = 2 * sum(look.mask_like for look in images) > len(images)
    grey = bool(masks) and 2 * sum(look.image_like for look in masks) > len(masks)
    if masks:
        facts += f", {median(look.changes for look in masks):.0%} in masks"
    if few and grey:
        return Check(
            "looks",
            Verdict.FAIL,
            f"{facts}: images and masks are taken for each other; exchange --images and --masks.",
        )
    if grey:
        return Check(
            "looks",
            Verdict.FAIL,
            f"{facts}: the masks are grey pictures, not labels; name the labels with --masks.",
        )
    if few and median(look.values for look in images) <= _MOST_VALUES:
        return Check(
            "looks",
            Verdict.FAIL,
            f"{facts}, of {median(look.values for look in images):.0f} values: the images are "
            f"labels, not micrographs; name the micrographs with --images.",
        )
    return Check("looks", Verdict.PASS, f"{facts}, as expected.")


@dataclass(frozen=True, slots=True)
class MaskAreas:
    """What the areas of a mask are."""

    not_zero: int
    """Pixels of any value but 0."""
    lost: Counter[int]
    """Pixels inside areas of one value that is above 0 but below the threshold, by value."""
    holes: int
    """Areas of background, but for specks."""
    largest: float
    """Share of the foreground that its largest area has."""


def areas_of(
    mask: Integer[np.ndarray, "row col"],
    foreground: Bool[np.ndarray, "row col"],
    threshold: int | None,
) -> MaskAreas:
    """Look at the areas of a mask.

    Args:
        mask: Its values.
        foreground: Where they stand for a class other than the background.
        threshold: Least value of the foreground; None where classes are named.
    """
    lost: Counter[int] = Counter()
    if threshold is not None:
        below = (mask > 0) & (mask < threshold)
        if below.any():
            low, high = scipy.ndimage.minimum_filter(mask, 3), scipy.ndimage.maximum_filter(mask, 3)
            values, counts = np.unique(mask[below & (low == high)], return_counts=True)
            lost.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    sizes = _sizes(foreground)
    background = _sizes(~foreground)
    return MaskAreas(
        int(np.count_nonzero(mask)),
        lost,
        int((background > _SPECK * mask.size).sum()),
        float(sizes.max() / sizes.sum()) if sizes.size else 0.0,
    )


def _sizes(part: Bool[np.ndarray, "row col"]) -> Integer[np.ndarray, " area"]:
    labels, _ = scipy.ndimage.label(part)
    sizes: Integer[np.ndarray, " area"] = np.bincount(labels.ravel())[1:]
    return sizes


@dataclass(frozen=True, slots=True)
class Looks:
    """Some slices of a dataset, and their masks."""

    images: tuple[Look, ...]
    masks: tuple[Look, ...]
    areas: tuple[MaskAreas, ...]


def look_at_slices(dataset: Dataset) -> Looks:
    """Look at some slices, those with masks where there are any; of large ones at the middle.

    Raises:
        ImageError: A file that cannot be read.
    """
    chosen = spread(dataset.labelled or dataset.slices, MOST)
    images = [look_at(read_image(centre(item.image), item.grey_window)) for item in chosen]
    masks, areas = [], []
    for item in chosen:
        if item.mask is not None:
            mask = read_mask(centre(item.mask))
            masks.append(look_at(mask))
            areas.append(
                areas_of(mask, dataset.classes.foreground(mask), dataset.classes.threshold)
            )
    return Looks(tuple(images), tuple(masks), tuple(areas))


def spread(slices: Sequence[Slice], most: int) -> list[Slice]:
    """At most so many slices, at even distances."""
    places = np.linspace(0, len(slices) - 1, min(most, len(slices))).round().astype(int)
    return [slices[place] for place in places.tolist()]
