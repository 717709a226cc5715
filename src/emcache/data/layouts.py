"""Layouts: where a dataset keeps its slices and masks, and how they pair.

A layout only lists: of a file that may hold many planes their number is read, and nothing is
decoded. Every listing is in natural order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from glob import escape as glob_escape
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from emcache.data.layout_options import check_options
from emcache.data.listing import glob_images, locate, slice_ids
from emcache.data.pairing import Rule, Scramble, pair, pair_by_position, suffixes_behind
from emcache.data.plane import AXES, Entry, Listing, Plane, thin
from emcache.data.splits import DEFAULT_SPLIT, assign_splits
from emcache.data.volumes.open import IMAGE_SUFFIXES, TIFF_SUFFIXES
from emcache.errors import DatasetError, PairingError, UsageError


class FileFacts(NamedTuple):
    """What a layout must know of a file."""

    planes: int
    """Number of planes along the axis in question."""
    voxel_size_nm: tuple[float, float, float] | None
    """Along z, y, x; None where the file does not say."""


Probe = Callable[[Plane], FileFacts]
"""Looks at the header of a plane's file."""
ListFiles = Callable[[Path, Mapping[str, Any], Probe], Listing]

# Sections are stated as 45 to 50 nm thick, pixels as 4.6 nm (Gerhard et al. 2013).
_VNC_VOXEL_NM = (47.5, 4.6, 4.6)
_LUCCHI_VOXEL_NM = (5.0, 5.0, 5.0)


def list_vnc(root: Path, options: Mapping[str, Any], probe: Probe) -> Listing:
    """The ssTEM *Drosophila* ventral nerve cord of Gerhard et al. 2013.

    ``stack1/raw/*.tif`` with ``stack1/mitochondria/*.png``, 17 + 3 slices by the published split;
    ``stack2/raw/*.tif``, where it is there, is the unlabelled split ``stack2``.
    """
    del options, probe
    images = glob_images(root, "stack1/raw/*.tif")
    masks = glob_images(root, "stack1/mitochondria/*.png")
    if not images:
        raise DatasetError(
            f"{root} holds no stack1/raw/*.tif; layout vnc expects the folder with stack1 (and "
            f"stack2) in it: check --root.",
            subject=root,
        )
    pairs = pair(images, masks, Rule.STEM)
    ids = {image: f"stack1/{PurePosixPath(image).stem}" for image, _ in pairs}
    splits = assign_splits(list(ids.values()), [DEFAULT_SPLIT])
    labelled = [
        Entry(ids[image], Plane(root / image), Plane(root / mask), splits[ids[image]])
        for image, mask in pairs
    ]
    unlabelled = [
        Entry(f"stack2/{PurePosixPath(image).stem}", Plane(root / image), None, "stack2")
        for image in glob_images(root, "stack2/raw/*.tif")
    ]
    return Listing((*labelled, *unlabelled), f"{Rule.STEM.words}", _VNC_VOXEL_NM)


def list_in_out(root: Path, options: Mapping[str, Any], probe: Probe) -> Listing:
    """Lucchi++ and Kasthuri++ as Casser et al. publish them.

    ``Train_In`` and ``Test_In`` hold the images (in Lucchi++ they are called ``mask0000.png``),
    ``Train_Out`` and ``Test_Out`` the masks (``0.png``); each pair shares a number. Training and
    test volumes are separate stacks.
    """
    del options, probe
    entries = []
    for split in ("train", "test"):
        folders = [f"{split.capitalize()}_{kind}" for kind in ("In", "Out")]
        images, masks = (glob_images(root, f"{folder}/*") for folder in folders)
        if not images:
            raise DatasetError(
                f"{root} holds no image in {folders[0]}; expected the folders Train_In, Train_Out, "
                f"Test_In and Test_Out in it: check --root.",
                subject=root,
            )
        entries += [
            Entry(
                f"{split}/{PurePosixPath(mask).stem}",
                Plane(root / image),
                Plane(root / mask),
                split,
            )
            for image, mask in pair(images, masks, Rule.NUMBER)
        ]
    return Listing(tuple(entries), Rule.NUMBER.words, None)


def list_lucchi(root: Path, options: Mapping[str, Any], probe: Probe) -> Listing:
    """Lucchi++: isotropic FIB-SEM of mouse hippocampus, 165 + 165 slices."""
    return replace(list_in_out(root, options, probe), voxel_size_nm=_LUCCHI_VOXEL_NM)


def list_folder(root: Path, options: Mapping[str, Any], probe: Probe) -> Listing:
    """Any folder: ``images`` and ``masks`` are patterns below the root, ``pair`` the rule.

    Files that match ``masks`` are never taken for images. Every page of a TIFF is a slice. With a
    ``mask_suffix`` alone, masks are the images' neighbours whose names end in it. Without either
    every slice is unlabelled and in no split.
    """
    suffix = options.get("mask_suffix", "")
    wanted = options.get("masks", f"**/*{glob_escape(suffix)}.*" if suffix else None)
    masks = [] if wanted is None else glob_images(root, wanted)
    mask_set = set(masks)
    pattern = options.get("images", "*")
    images = [name for name in glob_images(root, pattern) if name not in mask_set]
    if not images:
        raise DatasetError(
            f"{root} holds no image that matches {pattern!r:.200} ({', '.join(IMAGE_SUFFIXES)}); "
            f"check --root, --layout and --images.",
            subject=root,
        )
    pages = _Pages(root, probe)
    ids = pages.named(slice_ids(images))
    if wanted is None:
        if "images" not in options:
            _refuse_masks_among(images)
        entries = tuple(Entry(name, plane, None, None) for plane, name in ids.items())
        return Listing(entries, "no masks: every slice is unlabelled", pages.voxel_size_nm)
    if not masks:
        raise DatasetError(
            f"{root} holds no mask that matches {wanted!r:.200}; check --masks"
            f"{' and --mask-suffix' if suffix else ''}, or leave it out for an unlabelled dataset.",
            subject=root,
        )
    rule = Rule(options.get("pair", Rule.SUFFIX if suffix else Rule.STEM))
    if rule is Rule.ORDER:
        pairs = pair_by_position(list(ids), [plane for mask in masks for plane in pages.of(mask)])
        words = f"{rule.words} ({len(pairs)} of each)"
    else:
        pairs = []
        for image, mask in pair(images, masks, rule, suffix):
            pairs += pages.matched(image, mask)
        words = rule.words.replace("a suffix", f"the suffix {suffix}")
        words += "; page by page" if len(pairs) > len(images) else ""
    splits = assign_splits(list(ids.values()), options.get("split", [DEFAULT_SPLIT]))
    entries = tuple(Entry(ids[image], image, mask, splits[ids[image]]) for image, mask in pairs)
    return Listing(entries, words, pages.voxel_size_nm)


def _refuse_masks_among(images: Sequence[str]) -> None:
    """Refuse a folder where half of the files have another's name followed by one suffix.

    Raises:
        DatasetError: With what to do.
    """
    for suffix, count in suffixes_behind(images, images).items():
        # Digits alone count slices: s1 and s10.
        if 2 * count == len(images) and any(letter.isalpha() for letter in suffix):
            example = next(name for name in images if PurePosixPath(name).stem.endswith(suffix))
            raise DatasetError(
                f"{count} of {len(images)} images have the name of another one followed by "
                f"{suffix}, as {example}; expected images alone: give --mask-suffix {suffix} if "
                f"these are the masks, or --images '*' if all are images.",
                subject=suffix,
            )


def list_stack(root: Path, options: Mapping[str, Any], probe: Probe) -> Listing:
    """A volume in one file, and perhaps another with its masks, cut along ``axis``.

    ``images`` and ``masks`` name files below the root; an array within HDF5 or Zarr stands behind
    it, as ``volume.h5:/raw``. Plane by plane, the two pair by position.
    """
    if "images" not in options:
        raise UsageError(
            "layout stack needs the file of the volume; name it with --images, as raw.tif or "
            "volume.h5:/raw.",
            subject="images",
        )
    axis = AXES.index(options.get("axis", AXES[0]))
    images, facts = _planes(root, options["images"], axis, probe)
    voxel = facts.voxel_size_nm
    if voxel is not None:
        # Sections first, whatever the axis that they are cut along.
        z, y, x = (voxel[axis], *(size for i, size in enumerate(voxel) if i != axis))
        voxel = (z, y, x)
    if "masks" not in options:
        entries = tuple(Entry(str(i), plane, None, None) for i, plane in enumerate(images))
        return Listing(entries, "no masks: every slice is unlabelled", voxel)
    masks, _ = _planes(root, options["masks"], axis, probe)
    pairs = pair_by_position(images, masks)
    ids = [str(place) for place in range(len(pairs))]
    splits = assign_splits(ids, options.get("split", [DEFAULT_SPLIT]))
    return Listing(
        tuple(Entry(i, *both, splits[i]) for i, both in zip(ids, pairs, strict=True)),
        f"planes of two volumes along {AXES[axis]}, equally many ({len(pairs)} of each), are "
        f"paired by position",
        voxel,
    )


class _Pages:
    """The planes of a folder's files."""

    def __init__(self, root: Path, probe: Probe) -> None:
        self._root = root
        self._probe = probe
        self._planes: dict[str, tuple[Plane, ...]] = {}
        self._voxel_sizes: set[tuple[float, float, float] | None] = set()

    def of(self, name: str) -> tuple[Plane, ...]:
        """Every page of a file."""
        if name not in self._planes:
            planes: tuple[Plane, ...] = (Plane(self._root / name),)
            if PurePosixPath(name).suffix.lower() in TIFF_SUFFIXES:
                facts = self._probe(planes[0])
                self._voxel_sizes.add(facts.voxel_size_nm)
                if facts.planes != 1:
                    planes = tuple(replace(planes[0], index=i) for i in range(facts.planes))
            self._planes[name] = planes
        return self._planes[name]

    def named(self, ids: Mapping[str, str]) -> dict[Plane, str]:
        """A slice's name for each page of the files with these names."""
        return {
            plane: slice_id if plane.index is None else f"{slice_id}/{plane.index}"
            for name, slice_id in ids.items()
            for plane in self.of(name)
        }

    def matched(self, image: str, mask: str) -> list[tuple[Plane, Plane]]:
        """The pages of two files that belong together."""
        images, masks = self.of(image), self.of(mask)
        if len(images) != len(masks):
            raise PairingError(
                f"{image} holds {len(images)} pages, and its mask {mask} holds {len(masks)}; "
                f"expected a page for each slice: fix one of the files.",
                subject=(image, mask),
            )
        return list(zip(images, masks, strict=True))

    @property
    def voxel_size_nm(self) -> tuple[float, float, float] | None:
        """What all files state alike."""
        return next(iter(self._voxel_sizes)) if len(self._voxel_sizes) == 1 else None


def _planes(root: Path, spec: str, axis: int, probe: Probe) -> tuple[list[Plane], FileFacts]:
    path, inner = locate(root, spec)
    first = Plane(path, inner, axis, 0)
    facts = probe(first)
    return [replace(first, index=place) for place in range(facts.planes)], facts


LAYOUTS: Mapping[str, ListFiles] = {
    "lucchi++": list_lucchi,
    "kasthuri++": list_in_out,
    "vnc": list_vnc,
    "folder": list_folder,
    "stack": list_stack,
}
"""Every layout by its name."""

LAYOUT_CLASSES: Mapping[str, Mapping[str, Sequence[int]]] = {
    "kasthuri++": {"background": [0], "foreground": [255], "ignore": [2]},
}
"""What the values of a published data set's masks stand for, where a threshold would not do.

Kasthuri++ has 2 where the volume was not annotated. That is what torch-em's loader expects of the
download (``torch_em/data/datasets/electron_microscopy/kasthuri.py``: 255 is foreground, 2 becomes
-1); the data set itself was not at hand.
"""


def list_slices(layout: str, root: Path, options: Mapping[str, Any], probe: Probe) -> Listing:
    """List a dataset's slices.

    Args:
        layout: One of :data:`LAYOUTS`.
        root: The dataset's folder.
        options: What its table says.
        probe: Looks into files that may hold many planes.

    Raises:
        UsageError: An unknown layout, or an option it does not have or cannot take.
        DatasetError: The root is not there, or holds nothing that fits.
        PairingError: Images and masks that cannot be paired.
    """
    if layout not in LAYOUTS:
        raise UsageError(
            f"there is no layout {layout!r:.200}; known: {', '.join(LAYOUTS)}.", subject=layout
        )
    check_options(layout, options)
    if not _is_folder(root):
        raise DatasetError(f"{root} is not a folder; check --root.", subject=root)
    listing = LAYOUTS[layout](root, options, probe)
    _check_names(listing.entries)
    if "every" in options:
        listing = thin(listing, options["every"], str(root))
    if "scramble" in options:
        listing = Scramble.parse(options["scramble"]).apply(listing, str(root))
    if "voxel_size_nm" in options:
        z, y, x = (float(size) for size in options["voxel_size_nm"])
        return replace(listing, voxel_size_nm=(z, y, x))
    return listing


def _check_names(entries: Sequence[Entry]) -> None:
    """Refuse names that some file systems could not keep apart."""
    seen: dict[str, str] = {}
    for entry in entries:
        folded = entry.id.casefold()
        if folded in seen:
            raise DatasetError(
                f"slices {seen[folded]} and {entry.id} have names that differ only by case; "
                f"predictions and pictures are files of these names: rename one.",
                subject=(seen[folded], entry.id),
            )
        seen[folded] = entry.id


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # A name that is too long for any file.
        return False
