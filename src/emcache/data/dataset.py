"""Datasets: slices with their masks, sizes, splits and the hashes of their pixels.

A dataset is what its files say today. Loading one lists the folder, looks at every file by size and
time, and decodes only those that are new or changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from emcache.data.classes import ClassRule, class_rule
from emcache.data.facts import describe_planes, question_of
from emcache.data.layouts import LAYOUT_CLASSES, FileFacts, list_slices
from emcache.data.pairing import Scramble
from emcache.data.plane import Entry, Listing, Part, Plane
from emcache.data.resize import GreyWindow
from emcache.data.tiling import Tiling
from emcache.data.volumes.open import open_volume
from emcache.errors import DatasetError, EmcacheError, ImageError, UsageError
from emcache.progress import Quiet, Reporter
from emcache.storage.file_index import FileIndex, open_file_index
from emcache.storage.workspace import CONFIG_NAME, FIRST_NAME, Workspace

_OPTION = re.compile(
    r"--(root|images|masks|pair|mask-suffix|mask-threshold|instances|classes|split|axis"
    r"|grey-window|every|scramble)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice of a dataset."""

    id: str
    """Name within the dataset."""
    image: Plane
    """Where its pixels are."""
    mask: Plane | None = None
    """Where its mask is, or None."""
    split: str | None
    """``train``, ``test``, another name, or None."""
    height: int
    """Rows in pixels, as stored."""
    width: int
    """Columns in pixels, as stored."""
    pixel_sha256: str
    """Identity of the image's pixels."""
    mask_sha256: str | None = None
    """Identity of the mask's pixels, decoded to 0..255."""
    foreground_pixels: int | None = None
    """Mask pixels of all classes but the background."""
    grey_pixels: int | None = None
    """Mask pixels strictly between 0 and 255, where a threshold decides on them."""
    grey_window: GreyWindow | None = None
    """Values that become black and white; None for slices of 8 bits."""
    tile: Tile | None = None
    """Which part of a larger slice it is; None for a whole one."""

    @property
    def whole(self) -> Slice:
        """The slice that it is a tile of; itself unless it is one."""
        return self if self.tile is None else self.tile.whole

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns in pixels, as stored."""
        return self.height, self.width

    @property
    def own_pixels(self) -> int:
        """How many pixels it has, without those that count as another tile's."""
        if self.tile is None:
            return self.height * self.width
        return self.tile.own.rows * self.tile.own.columns

    @property
    def foreground_fraction(self) -> float | None:
        """Share of the mask's pixels that are foreground."""
        if self.foreground_pixels is None:
            return None
        return self.foreground_pixels / (self.height * self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's place; see :mod:`emcache.data.tiles`."""

    whole: Slice
    """The slice that it is a part of."""
    part: Part
    """Which part of it."""
    own: Part
    """The pixels of the slice that count as this tile's, where tiles overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named set of slices."""

    name: str
    layout: str
    root: Path
    pairing: str
    """The pairing rule in words."""
    voxel_size_nm: tuple[float, float, float] | None
    """Section thickness, row and column pitch in nanometres; None where unknown."""
    classes: ClassRule
    """What the values of its masks stand for."""
    grey_window: GreyWindow | None
    """Values that become black and white; None for slices of 8 bits."""
    slices: tuple[Slice, ...]
    first_name: str
    """What it was called when it was added; keys of trainings have it, whatever its name is now."""
    scramble: Scramble | None
    """How its masks are paired wrongly on purpose; None where they are not."""
    whole: Dataset | None = None
    """The dataset whose slices these are tiles of; None where they are not."""

    @property
    def of_whole_slices(self) -> Dataset:
        """The dataset whose slices these are tiles of; itself where they are not."""
        return self.whole or self

    @property
    def labelled(self) -> tuple[Slice, ...]:
        """Slices that have a mask."""
        return tuple(item for item in self.slices if item.mask is not None)

    @property
    def grey_pixels(self) -> int:
        """Mask pixels strictly between 0 and 255, over all masks that a threshold divides."""
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


def load_dataset(workspace: Workspace, name: str, reporter: Reporter | None = None) -> Dataset:
    """List a dataset's files and describe every slice.

    Raises:
        DatasetError: Unknown, or its root holds nothing that fits.
        PairingError: Leftovers on either side.
        ImageError: A file that cannot be read, or a mask of another size than its slice.
    """
    options = workspace.dataset_options(name)
    try:
        return read_dataset(name, options, workspace.root, open_file_index(workspace), reporter)
    except EmcacheError as error:
        if (words := _of_the_table(str(error), name)) == str(error):
            raise
        raise type(error)(words, subject=error.subject) from error


def _of_the_table(message: str, name: str) -> str:
    """A sentence on options that `dataset add` has, for commands that read them from the table."""
    options = set(_OPTION.findall(message))
    if not options:
        return message
    words = _OPTION.sub(lambda found: f"`{_in_the_table(found[1])}`", message).rstrip(".")
    moved = f"; where the folder moved, run `emcache dataset move {name} PATH`"
    return f"{words}, in [datasets.{name}] of {CONFIG_NAME}{moved if 'root' in options else ''}."


def _in_the_table(option: str) -> str:
    """What a table says for an option of the command line."""
    return "mask_threshold = 1" if option == "instances" else option.replace("-", "_")


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
        reporter: Receives progress, where files must be read.
    """
    layout, root, listing = list_dataset(name, options, base, index)
    classes = _classes_of(layout, options)
    window = GreyWindow(*map(float, options["grey_window"])) if "grey_window" in options else None
    empty = Dataset(
        name=name,
        layout=layout,
        root=root,
        pairing=listing.pairing,
        voxel_size_nm=listing.voxel_size_nm,
        classes=classes,
        grey_window=window,
        slices=(),
        first_name=options.get(FIRST_NAME, name),
        scramble=Scramble.parse(options["scramble"]) if "scramble" in options else None,
    )
    by_default = "mask_threshold" not in options
    slices = describe_slices(
        empty, listing.entries, index, reporter or Quiet(), by_default=by_default
    )
    dataset = replace(empty, slices=tuple(slices))
    _check_foreground(dataset)
    return dataset


def describe_slices(
    dataset: Dataset,
    entries: Sequence[Entry],
    index: FileIndex,
    reporter: Reporter,
    tiling: Tiling | None = None,
    *,
    by_default: bool = False,
) -> list[Slice]:
    """Describe slices of a dataset, or tiles of them, from their pixels.

    Args:
        dataset: What all of them have in common; its own slices do not count.
        entries: Where they are.
        index: Memory of files; saved when something was decoded.
        reporter: Receives progress, where files must be read.
        tiling: That the entries are tiles of.
        by_default: Whether nobody has said what the masks' values stand for.

    Raises:
        ImageError: A file that cannot be read, or a mask of another size than its slice.
    """
    window = dataset.grey_window
    facts = describe_planes(dataset.name, entries, window, index, reporter, tiling)
    return [_describe_slice(entry, facts, window, dataset.classes, by_default) for entry in entries]


def _classes_of(layout: str, options: Mapping[str, Any]) -> ClassRule:
    """What the options say of the masks' values; where they say nothing, what the layout knows."""
    if "mask_threshold" in options or "classes" in options:
        return class_rule(options.get("mask_threshold"), options.get("classes"))
    return class_rule(None, LAYOUT_CLASSES.get(layout))


def list_dataset(
    name: str, options: Mapping[str, Any], base: Path, index: FileIndex
) -> tuple[str, Path, Listing]:
    """A dataset's layout, its root, and what the layout lists; no pixel is decoded."""
    layout, root = options.get("layout"), options.get("root")
    if not isinstance(layout, str) or not isinstance(root, str):
        raise DatasetError(
            f"dataset {name} has no layout and root in emcache.toml; expected two strings: fix "
            f"its table.",
            subject=name,
        )
    return layout, base / root, list_slices(layout, base / root, options, partial(_probe, index))


def _probe(index: FileIndex, plane: Plane) -> FileFacts:
    found = index.answer(plane.path, question_of("header", plane), lambda _: _header(plane))
    voxel = found["voxel_size_nm"]
    return FileFacts(found["planes"], None if voxel is None else tuple(voxel))


def _header(plane: Plane) -> dict[str, Any]:
    volume = open_volume(plane.path, plane.inner)
    return {
        "planes": len(volume.sizes_along(plane.axis)),
        "voxel_size_nm": volume.voxel_size_nm,
    }


def _describe_slice(
    entry: Entry,
    facts: Mapping[Plane, Mapping[str, Any]],
    window: GreyWindow | None,
    classes: ClassRule,
    by_default: bool,
) -> Slice:
    image = facts[entry.image]
    height, width = image["shape"]
    unlabelled = Slice(
        id=entry.id,
        image=entry.image,
        split=entry.split,
        height=height,
        width=width,
        pixel_sha256=image["sha256"],
        grey_window=window,
    )
    if entry.mask is None:
        return unlabelled
    label = facts[entry.mask]
    if label["shape"] != image["shape"]:
        mask_height, mask_width = label["shape"]
        raise ImageError(
            f"mask {entry.mask} is {mask_height} x {mask_width} pixels (rows x columns), its slice "
            f"{entry.image} is {height} x {width}; expected the same size: fix the pair.",
            subject=entry.mask,
        )
    values = {int(value): count for value, count in label["values"].items()}
    classes.check(values, entry.mask, by_default=by_default)
    return replace(
        unlabelled,
        mask=entry.mask,
        mask_sha256=label["sha256"],
        foreground_pixels=classes.foreground_pixels(values),
        grey_pixels=classes.doubtful_pixels(values),
    )


def _check_foreground(dataset: Dataset) -> None:
    """Refuse a dataset whose masks hold something, but nothing at or above the threshold.

    Labels saved as 0 and 1 look black and would train a head on nothing.
    """
    labelled = dataset.labelled
    if labelled and not any(item.foreground_pixels for item in labelled) and dataset.grey_pixels:
        raise ImageError(
            f"no mask of {dataset.name} has a pixel of at least {dataset.classes.threshold}, "
            f"though {dataset.grey_pixels} are not 0; expected foreground there: set "
            f"--mask-threshold to the lowest foreground value, or give --instances, by which every "
            f"value above 0 is foreground.",
            subject=dataset.name,
        )


def slice_table_rows(slices: Sequence[Slice], root: Path) -> list[dict[str, Any]]:
    """Rows of a record's ``slices.parquet``, paths relative to the root."""
    return [
        {
            "slice_id": item.id,
            "position": position,
            "split": item.split,
            "image": item.image.below(root),
            "mask": None if item.mask is None else item.mask.below(root),
            "height": item.height,
            "width": item.width,
            "pixel_sha256": item.pixel_sha256,
            "mask_sha256": item.mask_sha256,
            "foreground_fraction": item.foreground_fraction,
            "grey_pixels": item.grey_pixels,
        }
        for position, item in enumerate(slices)
    ]
