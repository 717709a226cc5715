"""Alignment of pixels: rules that bring the greys of all slices to one distribution.

==================== ============================================================================
``percentile``       the 1st and 99th percentile of a slice become black and white
``clahe``            contrast-limited adaptive histogram equalisation (scikit-image's defaults)
``histogram:DATASET`` each slice's histogram becomes that of a dataset's training slices
==================== ============================================================================

A rule is part of the recipe of tokens, so slices under each rule have feature sets of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import UInt8

from emcache.data.dataset import Selection, load_dataset
from emcache.data.images import read_image
from emcache.data.sections import parts_of
from emcache.errors import DatasetError, UsageError
from emcache.progress import Reporter
from emcache.storage.hashing import json_sha256
from emcache.storage.workspace import Workspace

NAMES = ("none", "percentile", "clahe", "histogram")

_LOWEST, _HIGHEST = 1.0, 99.0
_HISTOGRAM = "histogram:"
# Pixels that a reference histogram is scaled to: a grey that fewer than one in as many has is lost.
_PIXELS = 1 << 16


@dataclass(frozen=True)
class GreyRule:
    """What is done to the greys of a slice, before it is resized."""

    name: str = "none"
    """Of :data:`NAMES`."""
    reference: str | None = None
    """Dataset whose histogram is meant."""
    counts: tuple[int, ...] = ()
    """Its pixels of each grey, 256 numbers that sum up to 65,536."""

    @cached_property
    def label(self) -> str:
        """``clahe``, or ``histogram:vnc@1a2b3c4d`` with the beginning of the histogram's hash."""
        if self.reference is None:
            return self.name
        return f"{_HISTOGRAM}{self.reference}@{json_sha256(list(self.counts))[:8]}"

    def identity(self) -> dict[str, Any]:
        """What enters the fingerprint of tokens: nothing where pixels stay as they are."""
        if self.name == "none":
            return {}
        rule: dict[str, Any] = {"rule": self.name}
        if self.reference is not None:
            rule |= {"of": self.reference, "counts": list(self.counts)}
        return {"greys": rule}

    def apply(self, pixels: UInt8[np.ndarray, "row col"]) -> UInt8[np.ndarray, "row col"]:
        """The slice under this rule."""
        if self.name == "none":
            return pixels
        # Half a second to import, which most commands never need.
        from skimage import exposure

        low, high = np.percentile(pixels, (_LOWEST, _HIGHEST))
        if self.name == "clahe" and pixels.min() < pixels.max():
            values = exposure.equalize_adapthist(pixels) * 255
        elif self.name == "percentile" and low < high:
            values = (pixels - low) / (high - low) * 255
        elif self.name == "histogram":
            reference = np.repeat(np.arange(256, dtype=np.uint8), self.counts)
            values = exposure.match_histograms(pixels.ravel(), reference).reshape(pixels.shape)
        else:  # a slice of one grey, or nearly so, has nothing to spread
            return pixels
        scaled: UInt8[np.ndarray, "row col"] = np.rint(values).clip(0, 255).astype(np.uint8)
        return scaled


def read_grey_rule(text: str) -> str:
    """A rule as it is typed, checked for its form.

    Raises:
        ValueError: None of ``none``, ``percentile``, ``clahe`` and ``histogram:DATASET``.
    """
    if text in NAMES[:3] or (text.startswith(_HISTOGRAM) and text != _HISTOGRAM):
        return text
    raise ValueError("unknown")


def find_grey_rule(workspace: Workspace, text: str, reporter: Reporter) -> GreyRule:
    """The rule of that name, with the histogram of its reference.

    Raises:
        UsageError: There is no such rule.
        DatasetError: The reference is not there, or has no training slices.
    """
    try:
        read_grey_rule(text)
    except ValueError as error:
        raise UsageError(
            f"there is no rule {text!r:.100} for greys; known: none, percentile, clahe and "
            f"histogram:DATASET.",
            subject=text,
        ) from error
    if not text.startswith(_HISTOGRAM):
        return GreyRule(text)
    name = text.removeprefix(_HISTOGRAM)
    dataset = load_dataset(workspace, name, reporter)
    slices = Selection(name, "train").of(dataset)
    if not slices:
        raise DatasetError(f"dataset {name} has no training slices.", subject=name)
    counts = np.zeros(256, np.int64)
    for item in slices:
        for part in parts_of(item.image):
            counts += np.bincount(read_image(part, item.grey_window).ravel(), minlength=256)
    # Cut the running sum at whole numbers, so that the parts sum up to exactly as many pixels.
    running = np.rint(np.cumsum(counts) / counts.sum() * _PIXELS).astype(np.int64)
    scaled = np.diff(running, prepend=0)
    return GreyRule("histogram", dataset.first_name, tuple(int(count) for count in scaled))


def grey_rule_of(preprocessing: Mapping[str, Any]) -> GreyRule:
    """The rule that a recipe states, from :meth:`GreyRule.identity`."""
    rule = preprocessing.get("greys")
    if rule is None:
        return GreyRule()
    return GreyRule(rule["rule"], rule.get("of"), tuple(rule.get("counts", ())))
