"""Layouts: where a dataset keeps its slices and masks, and how they pair.

A layout only lists files; nothing is decoded here. Every listing is in natural order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

from emcache.errors import DatasetError, PairingError, UsageError
from emcache.images import IMAGE_SUFFIXES
from emcache.natural import natural_sorted
from emcache.pairing import Rule, pair
from emcache.splits import DEFAULT_SPLIT, assign_splits


@dataclass(frozen=True, slots=True)
class Entry:
    """One slice as a layout lists it."""

    id: str
    """Name of the slice within the dataset."""
    image: str
    """Path of the image relative to the dataset's root, ``/`` between folders."""
    mask: str | None
    """Path of the mask, or None where the slice has no label."""
    split: str | None
    """``train``, ``test``, another name, or None in an unlabelled folder."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a layout found."""

    entries: tuple[Entry, ...]
    pairing: str
    """The pairing rule in words."""
    voxel_size_nm: tuple[float, float, float] | None
    """Section thickness, row and column pitch in nanometres; None where unknown."""


ListFiles = Callable[[Path, Mapping[str, Any]], Listing]

# Sections are stated as 45 to 50 nm thick, pixels as 4.6 nm (Gerhard et al. 2013).
_VNC_VOXEL_NM = (47.5, 4.6, 4.6)
_LUCCHI_VOXEL_NM = (5.0, 5.0, 5.0)


def list_vnc(root: Path, options: Mapping[str, Any]) -> Listing:
    """The ssTEM *Drosophila* ventral nerve cord of Gerhard et al. 2013.

    ``stack1/raw/*.tif`` with ``stack1/mitochondria/*.png``, 17 + 3 slices by the published split;
    ``stack2/raw/*.tif``, where it is there, is the unlabelled split ``stack2``.
    """
    del options
    images = _glob(root, "stack1/raw/*.tif")
    masks = _glob(root, "stack1/mitochondria/*.png")
    if not images:
        raise DatasetError(
            f"{root} holds no stack1/raw/*.tif; layout vnc expects the folder with stack1 (and "
            f"stack2) in it: check --root.",
            subject=root,
        )
    pairs = pair(images, masks, Rule.STEM)
    ids = {image: f"stack1/{PurePosixPath(image).stem}" for image, _ in pairs}
    splits = assign_splits(list(ids.values()), [DEFAULT_SPLIT])
    labelled = [Entry(ids[image], image, mask, splits[ids[image]]) for image, mask in pairs]
    unlabelled = [
        Entry(f"stack2/{PurePosixPath(image).stem}", image, None, "stack2")
        for image in _glob(root, "stack2/raw/*.tif")
    ]
    return Listing((*labelled, *unlabelled), f"{Rule.STEM.words}", _VNC_VOXEL_NM)


def list_in_out(root: Path, options: Mapping[str, Any]) -> Listing:
    """Lucchi++ and Kasthuri++ as Casser et al. publish them.

    ``Train_In`` and ``Test_In`` hold the images (in Lucchi++ they are called ``mask0000.png``),
    ``Train_Out`` and ``Test_Out`` the masks (``0.png``); each pair shares a number. Training and
    test volumes are separate stacks.
    """
    del options
    entries = []
    for split in ("train", "test"):
        folders = [f"{split.capitalize()}_{kind}" for kind in ("In", "Out")]
        images, masks = (_glob(root, f"{folder}/*") for folder in folders)
        if not images:
            raise DatasetError(
                f"{root} holds no image in {folders[0]}; expected the folders Train_In, Train_Out, "
                f"Test_In and Test_Out in it: check --root.",
                subject=root,
            )
        entries += [
            Entry(f"{split}/{PurePosixPath(mask).stem}", image, mask, split)
            for image, mask in pair(images, masks, Rule.NUMBER)
        ]
    return Listing(tuple(entries), Rule.NUMBER.words, None)


def list_lucchi(root: Path, options: Mapping[str, Any]) -> Listing:
    """Lucchi++: isotropic FIB-SEM of mouse hippocampus, 165 + 165 slices."""
    return replace(list_in_out(root, options), voxel_size_nm=_LUCCHI_VOXEL_NM)


def list_folder(root: Path, options: Mapping[str, Any]) -> Listing:
    """Any folder: ``images`` and ``masks`` are patterns below the root, ``pair`` the rule.

    Files that match ``masks`` are never taken for images. Without ``masks`` every slice is
    unlabelled and in no split.
    """
    masks = _glob(root, options["masks"]) if "masks" in options else []
    mask_set = set(masks)
    pattern = options.get("images", "*")
    images = [name for name in _glob(root, pattern) if name not in mask_set]
    if not images:
        raise DatasetError(
            f"{root} holds no image that matches {pattern!r} ({', '.join(IMAGE_SUFFIXES)}); check "
            f"--root and --images.",
            subject=root,
        )
    ids = _folder_ids(images)
    if "masks" not in options:
        entries = tuple(Entry(ids[image], image, None, None) for image in images)
        return Listing(entries, "no masks: every slice is unlabelled", None)
    if not masks:
        raise DatasetError(
            f"{root} holds no mask that matches {options['masks']!r}; check --masks, or leave it "
            f"out for an unlabelled dataset.",
            subject=root,
        )
    rule = Rule(options.get("pair", Rule.STEM))
    pairs = pair(images, masks, rule)
    splits = assign_splits(list(ids.values()), options.get("split", [DEFAULT_SPLIT]))
    entries = tuple(Entry(ids[image], image, mask, splits[ids[image]]) for image, mask in pairs)
    return Listing(entries, rule.words, None)


LAYOUTS: Mapping[str, ListFiles] = {
    "lucchi++": list_lucchi,
    "kasthuri++": list_in_out,
    "vnc": list_vnc,
    "folder": list_folder,
}
"""Every layout by its name."""


def list_slices(layout: str, root: Path, options: Mapping[str, Any]) -> Listing:
    """List a dataset's files.

    Raises:
        UsageError: An unknown layout, or an option it does not have or cannot take.
        DatasetError: The root is not there, or holds nothing that fits.
        PairingError: Images and masks that cannot be paired.
    """
    if layout not in LAYOUTS:
        raise UsageError(
            f"there is no layout {layout!r}; known: {', '.join(LAYOUTS)}.", subject=layout
        )
    check_options(layout, options)
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder; check --root.", subject=root)
    listing = LAYOUTS[layout](root, options)
    if "voxel_size_nm" in options:
        z, y, x = (float(size) for size in options["voxel_size_nm"])
        return replace(listing, voxel_size_nm=(z, y, x))
    return listing


def check_options(layout: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a layout does not have, or of the wrong kind.

    A mistyped ``spilt`` would otherwise leave the default split in silence.

    Raises:
        UsageError: The option is named.
    """
    allowed = _OPTIONS[layout]
    for name, value in options.items():
        if name in ("layout", "root"):
            continue
        if name not in allowed:
            raise UsageError(
                f"layout {layout} has no option {name!r}; known: {', '.join(allowed) or 'none'}.",
                subject=name,
            )
        what, fits = allowed[name]
        if not fits(value):
            raise UsageError(f"{name} cannot be {value!r}; expected {what}.", subject=name)
    for name in ("pair", "split", "mask_threshold"):
        if layout == "folder" and name in options and "masks" not in options:
            raise UsageError(
                f"{name} says something of masks, and none are named; add masks, or leave {name} "
                f"out.",
                subject=name,
            )


def _is_pattern(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_threshold(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 255


def _is_voxel_size(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in value)
        and all(isfinite(v) for v in value)
    )


def _is_split(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


_THRESHOLD = ("a whole number from 1 to 255", _is_threshold)
_VOXEL_SIZE = ("three positive numbers, [z, y, x] in nanometres", _is_voxel_size)
_OPTIONS: Mapping[str, Mapping[str, tuple[str, Callable[[object], bool]]]] = {
    **{
        name: {"mask_threshold": _THRESHOLD, "voxel_size_nm": _VOXEL_SIZE}
        for name in ("lucchi++", "kasthuri++", "vnc")
    },
    "folder": {
        "images": ("a pattern below the root", _is_pattern),
        "masks": ("a pattern below the root", _is_pattern),
        "pair": (f"one of {', '.join(Rule)}", lambda value: value in list(Rule)),
        "split": ("a list of split rules", _is_split),
        "mask_threshold": _THRESHOLD,
        "voxel_size_nm": _VOXEL_SIZE,
    },
}


def _glob(root: Path, pattern: str) -> list[str]:
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise UsageError(
            f"pattern {pattern!r} leaves the root; expected a pattern below {root}.",
            subject=pattern,
        )
    try:
        return natural_sorted(_matching_files(root, pattern))
    except ValueError as error:
        raise UsageError(
            f"{pattern!r} is no pattern ({error}); expected one as images/*.png.", subject=pattern
        ) from error


def _matching_files(root: Path, pattern: str) -> Iterator[str]:
    for path in root.glob(pattern):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file():
            name = path.relative_to(root).as_posix()
            if not name.isprintable():
                raise DatasetError(
                    f"a file in {root} has a name that cannot be shown ({name!r}); rename it.",
                    subject=path,
                )
            yield name


def _folder_ids(images: list[str]) -> dict[str, str]:
    """Names of slices: the path without its ending, less the folders that all share."""
    parents = [PurePosixPath(image).parent.parts for image in images]
    shared = 0
    while all(len(p) > shared and p[shared] == parents[0][shared] for p in parents):
        shared += 1
    ids: dict[str, str] = {}
    taken: dict[str, str] = {}
    for image in images:
        path = PurePosixPath(image)
        name = PurePosixPath(*path.parent.parts[shared:], path.stem).as_posix()
        if name in taken:
            raise PairingError(
                f"images {taken[name]} and {image} have the same name without their endings; a "
                f"slice needs a name of its own: rename one, or narrow --images.",
                subject=(taken[name], image),
            )
        taken[name] = image
        ids[image] = name
    return ids
