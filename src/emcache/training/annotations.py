"""A few labelled points of a slice: from a user's file, or drawn from its mask."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt8

from emcache.data.classes import IGNORED
from emcache.data.dataset import Slice
from emcache.data.images import page_sizes, read_mask
from emcache.data.plane import Plane
from emcache.errors import UsageError
from emcache.storage.hashing import file_sha256, json_sha256

BACKGROUND, FOREGROUND = 1, 2
"""Values in a label image; 0 is unlabelled."""

_COLUMNS = ("slice", "row", "col", "label")
_WORDS = {
    "1": 0,
    "background": 0,
    "2": 1,
    "foreground": 1,
}
_IMAGES = (".png", ".tif", ".tiff")
_STROKE = 40
"""Steps of a scribble before another one begins."""
_TURN = 0.35


class Points(NamedTuple):
    """Labelled pixels of one slice."""

    places: Float64[np.ndarray, "point 2"]
    """Row and column of each pixel's middle, as shares of height and width."""
    foreground: UInt8[np.ndarray, " point"]
    """1 for foreground, 0 for background."""


def drawn_clicks(
    mask: UInt8[np.ndarray, "row col"], count: int, random: np.random.Generator, name: str
) -> Points:
    """So many foreground pixels and as many of the background, at random.

    Args:
        mask: Labels; 255 is left out.
        count: Of each class.
        random: Draws them.
        name: Of the slice, for the error.

    Raises:
        UsageError: A class has fewer pixels.
    """
    places, foreground = [], []
    for value, own, what in ((1, _is_foreground(mask), "foreground"), (0, mask == 0, "background")):
        pixels = np.flatnonzero(own)
        if len(pixels) < count:
            raise UsageError(
                f"slice {name} has {len(pixels)} pixels of {what}, and {count} clicks were to be "
                f"drawn there; expected as many pixels: choose fewer --clicks, or more "
                f"--from-slices.",
                subject=name,
            )
        places.append(random.choice(pixels, size=count, replace=False))
        foreground.append(np.full(count, value, np.uint8))
    return _points(np.concatenate(places), np.concatenate(foreground), mask.shape)


def drawn_scribbles(
    mask: UInt8[np.ndarray, "row col"], share: float, random: np.random.Generator
) -> Points:
    """Strokes of one pixel's width that stay within their class, half of them on foreground.

    A stroke begins at a random pixel and turns a little at each step, as a hand does. Where a class
    has fewer pixels than its half, all of them are taken.

    Args:
        mask: Labels; 255 is left out.
        share: Of the slice's pixels, of both classes together.
        random: Draws them.
    """
    wanted = max(1, round(share * mask.size / 2))
    pixels, foreground = [], []
    for value, own in ((1, _is_foreground(mask)), (0, mask == 0)):
        drawn = _strokes(own, min(wanted, int(own.sum())), random)
        pixels.append(drawn)
        foreground.append(np.full(len(drawn), value, np.uint8))
    return _points(np.concatenate(pixels), np.concatenate(foreground), mask.shape)


def read_annotations(path: Path, slices: Sequence[Slice]) -> Mapping[str, Points]:
    """Points from a table, a label image, or a folder of these.

    A table (CSV) has the columns ``slice``, ``row``, ``col`` (pixels from 0) and ``label``
    (``foreground`` or ``background``). A label image is as large as its slice and has its name; 0
    is unlabelled, 1 background and 2 foreground, as napari and Fiji save labels.

    Args:
        path: File or folder.
        slices: That may be annotated.

    Returns:
        Points by the slices' names.

    Raises:
        UsageError: It cannot be read, names no slice, or points lie outside.
        ImageError: A label image that cannot be read.
    """
    known = {item.id: item for item in slices}
    if path.suffix.lower() == ".csv":
        return _read_table(path, known)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in _IMAGES]
    if not files or not files[0].is_file():
        raise UsageError(
            f"there are no annotations at {path}; expected a CSV with {', '.join(_COLUMNS)}, a "
            f"label image (PNG or TIFF), or a folder of these.",
            subject=path,
        )
    return {item.id: _read_labels(file, item) for file, item in _matched(files, known)}


def annotations_sha256(path: Path) -> str:
    """Hash of a file of annotations, or of all files of a folder.

    Raises:
        UsageError: It is not there.
    """
    if path.is_dir():
        return json_sha256([[file.name, file_sha256(file)] for file in sorted(path.iterdir())])
    if not path.is_file():
        raise UsageError(
            f"there is no file or folder {path}; expected annotations there.", subject=path
        )
    return file_sha256(path)


def _matched(files: Sequence[Path], known: Mapping[str, Slice]) -> list[tuple[Path, Slice]]:
    found = []
    for file in files:
        own = [item for name, item in known.items() if file.stem in (name, Path(name).name)]
        if len(own) != 1:
            raise UsageError(
                f"{file} has the name of {len(own)} training slices; expected that of one, as "
                f"{next(iter(known), 'none')}.",
                subject=file,
            )
        found.append((file, own[0]))
    return found


def _read_labels(file: Path, item: Slice) -> Points:
    labels = read_mask(Plane(file))
    size = page_sizes(item.image)[0]
    if labels.shape != tuple(size):
        raise UsageError(
            f"{file} has {labels.shape[0]} x {labels.shape[1]} pixels, and slice {item.id} has "
            f"{size[0]} x {size[1]}; expected labels of the slice's own size.",
            subject=file,
        )
    others = sorted({int(value) for value in np.unique(labels)} - {0, BACKGROUND, FOREGROUND})
    if others:
        raise UsageError(
            f"{file} has the value {others[0]}; expected 0 for unlabelled, {BACKGROUND} for "
            f"background and {FOREGROUND} for foreground.",
            subject=file,
        )
    pixels = np.flatnonzero(labels)
    foreground = (labels.ravel()[pixels] == FOREGROUND).astype(np.uint8)
    return _points(pixels, foreground, labels.shape)


def _read_table(path: Path, known: Mapping[str, Slice]) -> Mapping[str, Points]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            rows = [] if missing else list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); expected a CSV.", subject=path
        ) from error
    if missing:
        raise UsageError(
            f"{path} has no column {missing[0]}; expected {', '.join(_COLUMNS)}.", subject=path
        )
    sizes = {name: page_sizes(item.image)[0] for name, item in known.items()}
    found: dict[str, list[tuple[float, float, int]]] = {}
    for number, row in enumerate(rows, 2):
        name, label = str(row["slice"]), _WORDS.get(str(row["label"]).strip().lower())
        if name not in known:
            raise UsageError(
                f"line {number} of {path} names slice {name!r:.100}; expected a training slice, as "
                f"{next(iter(known), 'none')}.",
                subject=name,
            )
        if label is None:
            raise UsageError(
                f"line {number} of {path} has the label {row['label']!r:.40}; expected foreground "
                f"or background.",
                subject=path,
            )
        found.setdefault(name, []).append((*_place(path, number, row, sizes[name]), label))
    if not found:
        raise UsageError(f"{path} has no points; expected at least one line.", subject=path)
    return {
        name: Points(
            np.array([point[:2] for point in points], np.float64),
            np.array([point[2] for point in points], np.uint8),
        )
        for name, points in found.items()
    }


def _place(
    path: Path, number: int, row: Mapping[str, str], size: Sequence[int]
) -> tuple[float, float]:
    try:
        pixel = float(row["row"]), float(row["col"])
    except (TypeError, ValueError):
        raise UsageError(
            f"line {number} of {path} has row {row['row']!r:.40} and col {row['col']!r:.40}; "
            f"expected numbers of pixels from 0.",
            subject=path,
        ) from None
    if not all(0 <= value < side for value, side in zip(pixel, size, strict=True)):
        raise UsageError(
            f"line {number} of {path} lies at row {pixel[0]:g}, col {pixel[1]:g}, outside the "
            f"slice; expected rows below {size[0]} and cols below {size[1]}.",
            subject=path,
        )
    row_share, col_share = ((int(p) + 0.5) / s for p, s in zip(pixel, size, strict=True))
    return row_share, col_share


def _strokes(
    own: Bool[np.ndarray, "row col"], wanted: int, random: np.random.Generator
) -> Integer[np.ndarray, " pixel"]:
    """Pixels of strokes within a region, in the order in which they are drawn."""
    inside = np.flatnonzero(own)
    width = own.shape[1]
    drawn: dict[int, None] = {}
    while len(drawn) < wanted:
        row, col = divmod(int(random.choice(inside)), width)
        place = np.array([row, col], np.float64)
        angle = random.uniform(0, 2 * np.pi)
        for _ in range(_STROKE):
            pixel = np.rint(place).astype(int)
            if not (0 <= pixel[0] < own.shape[0] and 0 <= pixel[1] < width and own[tuple(pixel)]):
                break
            drawn[int(pixel[0] * width + pixel[1])] = None
            if len(drawn) == wanted:
                break
            angle += random.normal(scale=_TURN)
            place += (np.sin(angle), np.cos(angle))
    return np.fromiter(drawn, np.int64, len(drawn))


def _is_foreground(mask: UInt8[np.ndarray, "row col"]) -> Bool[np.ndarray, "row col"]:
    inside: Bool[np.ndarray, "row col"] = (mask > 0) & (mask != IGNORED)
    return inside


def _points(
    pixels: Integer[np.ndarray, " point"],
    foreground: UInt8[np.ndarray, " point"],
    shape: tuple[int, ...],
) -> Points:
    rows, columns = np.divmod(pixels, shape[1])
    places = np.stack([(rows + 0.5) / shape[0], (columns + 0.5) / shape[1]], axis=1)
    return Points(places, foreground)
