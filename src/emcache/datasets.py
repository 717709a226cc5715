"""Datasets: slices with their masks, sizes, splits and the hashes of their pixels.

A dataset is what its files say today. Loading one lists the folder, looks at every file by size and
time, and decodes only those that are new or changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcache.errors import DatasetError, ImageError, UsageError
from emcache.file_index import FileIndex
from emcache.images import DECODER, pixel_sha256, read_image, read_mask
from emcache.layouts import Entry, Listing, list_slices
from emcache.progress import Quiet, Reporter
from emcache.workspace import Workspace

DEFAULT_MASK_THRESHOLD = 128
"""A mask pixel of at least this value is foreground."""

# What a file's pixels are depends on who decodes them.
_IMAGE, _MASK = (f"{kind} decoder={DECODER}" for kind in ("image", "mask"))


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a dataset."""

    id: str
    """Name within the dataset."""
    image: Path
    """Absolute path of the image."""
    mask: Path | None
    """Absolute path of the mask, or None."""
    split: str | None
    """``train``, ``test``, another name, or None."""
    height: int
    """Rows in pixels, as stored."""
    width: int
    """Columns in pixels, as stored."""
    pixel_sha256: str
    """Identity of the image's pixels."""
    mask_sha256: str | None
    """Identity of the mask's pixels, decoded to 0..255."""
    foreground_pixels: int | None
    """Mask pixels at or above the threshold."""
    grey_pixels: int | None
    """Mask pixels strictly between 0 and 255."""

    @property
    def foreground_fraction(self) -> float | None:
        """Share of the mask's pixels that are foreground."""
        if self.foreground_pixels is None:
            return None
        return self.foreground_pixels / (self.height * self.width)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named set of slices."""

    name: str
    layout: str
    root: Path
    pairing: str
    """The pairing rule in words."""
    voxel_size_nm: tuple[float, float, float] | None
    """Section thickness, row and column pitch in nanometres; None where unknown."""
    mask_threshold: int
    """A mask pixel of at least this value is foreground."""
    slices: tuple[Slice, ...]

    @property
    def labelled(self) -> tuple[Slice, ...]:
        """Slices that have a mask."""
        return tuple(item for item in self.slices if item.mask is not None)

    @property
    def grey_pixels(self) -> int:
        """Mask pixels strictly between 0 and 255, over all masks."""
        return sum(item.grey_pixels or 0 for item in self.slices)

    def split_counts(self) -> dict[str, int]:
        """Number of slices in each split; unlabelled slices in none count as ``all``."""
        counts: dict[str, int] = {}
        for item in self.slices:
            counts[item.split or "all"] = counts.get(item.split or "all", 0) + 1
        return counts


@dataclass(frozen=True, slots=True)
class Selection:
    """A dataset's name with, perhaps, one of its splits: ``vnc`` or ``vnc:stack2``."""

    dataset: str
    split: str | None

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read ``NAME`` or ``NAME:SPLIT``."""
        name, colon, split = text.partition(":")
        if not name or (colon and not split):
            raise UsageError(
                f"{text!r} names no dataset; expected NAME or NAME:SPLIT.", subject=text
            )
        return cls(name, split or None)

    def __str__(self) -> str:
        return self.dataset if self.split is None else f"{self.dataset}:{self.split}"

    def of(self, dataset: Dataset) -> tuple[Slice, ...]:
        """The selected slices: one split, else the labelled slices, else all.

        Raises:
            DatasetError: The dataset has no such split.
        """
        if self.split is None:
            return dataset.labelled or dataset.slices
        chosen = tuple(item for item in dataset.slices if item.split == self.split)
        if not chosen:
            known = ", ".join(dict.fromkeys(item.split for item in dataset.slices if item.split))
            raise DatasetError(
                f"dataset {dataset.name} has no split {self.split!r}; known: {known or 'none'}.",
                subject=self.split,
            )
        return chosen


def open_file_index(workspace: Workspace) -> FileIndex:
    """The workspace's memory of what its files hold."""
    return FileIndex(workspace.cache / "files.json")


def load_dataset(workspace: Workspace, name: str, reporter: Reporter | None = None) -> Dataset:
    """List a dataset's files and describe every slice.

    Raises:
        DatasetError: Unknown, or its root holds nothing that fits.
        PairingError: Leftovers on either side.
        ImageError: A file that cannot be read, or a mask of another size than its slice.
    """
    options = workspace.dataset_options(name)
    return read_dataset(name, options, workspace.root, open_file_index(workspace), reporter)


def read_dataset(
    name: str,
    options: Mapping[str, Any],
    base: Path,
    index: FileIndex,
    reporter: Reporter | None = None,
) -> Dataset:
    """As :func:`load_dataset`, from options that need not stand in ``emcache.toml`` yet.

    Args:
        name: The dataset's name.
        options: ``layout``, ``root`` and what the layout knows.
        base: Folder that a relative root starts from.
        index: Memory of files; saved when done.
        reporter: Hears of files that must be decoded.
    """
    layout, relative, threshold = _common_options(name, options)
    root = base / relative
    listing = list_slices(layout, root, options)
    slices = _describe(name, root, listing, threshold, index, reporter or Quiet())
    dataset = Dataset(name, layout, root, listing.pairing, listing.voxel_size_nm, threshold, slices)
    _check_foreground(dataset)
    return dataset


def _common_options(name: str, options: Mapping[str, Any]) -> tuple[str, str, int]:
    layout, root = options.get("layout"), options.get("root")
    threshold = options.get("mask_threshold", DEFAULT_MASK_THRESHOLD)
    if not isinstance(layout, str) or not isinstance(root, str):
        raise DatasetError(
            f"dataset {name} has no layout and root in emcache.toml; expected two strings: mend "
            f"its table.",
            subject=name,
        )
    return layout, root, threshold


def _describe(
    name: str,
    root: Path,
    listing: Listing,
    threshold: int,
    index: FileIndex,
    reporter: Reporter,
) -> tuple[Slice, ...]:
    unknown = sum(
        index.lookup(root / file, kind) is None
        for entry in listing.entries
        for file, kind in ((entry.image, _IMAGE), (entry.mask, _MASK))
        if file is not None
    )

    def one(entry: Entry) -> Slice:
        return _describe_slice(root, entry, threshold, index)

    # Decoding releases the interpreter's lock, so threads share the cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if not unknown:
            return tuple(pool.map(one, listing.entries))
        slices = []
        try:
            with reporter.task(f"Reading {name}", len(listing.entries), "slices") as task:
                for item in pool.map(one, listing.entries):
                    slices.append(item)
                    task.advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            index.save()
    return tuple(slices)


def _describe_slice(root: Path, entry: Entry, threshold: int, index: FileIndex) -> Slice:
    image = root / entry.image
    facts = index.answer(image, _IMAGE, _image_facts)
    height, width = facts["shape"]
    if entry.mask is None:
        return Slice(
            entry.id, image, None, entry.split, height, width, facts["sha256"], None, None, None
        )
    mask = root / entry.mask
    label = index.answer(mask, _MASK, _mask_facts)
    if label["shape"] != facts["shape"]:
        mask_height, mask_width = label["shape"]
        raise ImageError(
            f"mask {mask} is {mask_height} x {mask_width} pixels (rows x columns), its slice "
            f"{image} is {height} x {width}; expected the same size: mend the pair.",
            subject=mask,
        )
    values = {int(value): count for value, count in label["values"].items()}
    return Slice(
        entry.id,
        image,
        mask,
        entry.split,
        height,
        width,
        facts["sha256"],
        label["sha256"],
        sum(count for value, count in values.items() if value >= threshold),
        sum(count for value, count in values.items() if 0 < value < 255),
    )


def _image_facts(path: Path) -> dict[str, Any]:
    pixels = read_image(path)
    return {"shape": list(pixels.shape), "sha256": pixel_sha256(pixels)}


def _mask_facts(path: Path) -> dict[str, Any]:
    pixels = read_mask(path)
    counts = np.bincount(pixels.ravel(), minlength=256)
    return {
        "shape": list(pixels.shape),
        "sha256": pixel_sha256(pixels),
        "values": {str(value): int(counts[value]) for value in np.flatnonzero(counts)},
    }


def _check_foreground(dataset: Dataset) -> None:
    """Refuse a dataset whose masks hold something, but nothing at or above the threshold.

    Labels saved as 0 and 1 look black and would train a head on nothing.
    """
    labelled = dataset.labelled
    if labelled and not any(item.foreground_pixels for item in labelled) and dataset.grey_pixels:
        raise ImageError(
            f"no mask of {dataset.name} has a pixel of at least {dataset.mask_threshold}, though "
            f"{dataset.grey_pixels} are not 0; expected foreground there: set --mask-threshold to "
            f"the lowest foreground value (1 for labels saved as 0 and 1).",
            subject=dataset.name,
        )


def slice_table_rows(slices: Sequence[Slice], root: Path) -> list[dict[str, Any]]:
    """Rows of a record's ``slices.parquet``, paths relative to the root."""
    return [
        {
            "slice_id": item.id,
            "position": position,
            "split": item.split,
            "image": item.image.relative_to(root).as_posix(),
            "mask": None if item.mask is None else item.mask.relative_to(root).as_posix(),
            "height": item.height,
            "width": item.width,
            "pixel_sha256": item.pixel_sha256,
            "mask_sha256": item.mask_sha256,
            "foreground_fraction": item.foreground_fraction,
            "grey_pixels": item.grey_pixels,
        }
        for position, item in enumerate(slices)
    ]
