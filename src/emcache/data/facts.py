"""What is noted of every plane of a dataset: its size, the hash of its pixels, its labels."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from emcache.data.images import PixelDigest, pixel_sha256, read_image, read_mask
from emcache.data.plane import AXES, Entry, Plane
from emcache.data.resize import GreyWindow
from emcache.data.sections import is_large, plane_size, strips
from emcache.data.tiling import Tiling
from emcache.data.volumes.open import DECODER, open_volume
from emcache.progress import Reporter, Task
from emcache.storage.file_index import FileIndex

Facts = Mapping[str, Any]
"""``shape`` and ``sha256`` of a plane; of a mask also ``values``, the pixels of each value."""


def question_of(
    what: str, plane: Plane, window: GreyWindow | None = None, tiling: Tiling | None = None
) -> str:
    """What the index is asked of a plane's file; it names all that the answer depends on."""
    inner = f" array={plane.inner}" if plane.inner else ""
    axis = f" axis={AXES[plane.axis]}" if plane.axis else ""
    scale = "" if window is None else f" grey={window.black!r},{window.white!r}"
    tiles = "" if tiling is None else f" tile={tiling.words}"
    return f"{what} decoder={DECODER}{inner}{axis}{scale}{tiles}"


def describe_planes(
    name: str,
    entries: Sequence[Entry],
    window: GreyWindow | None,
    index: FileIndex,
    reporter: Reporter,
    tiling: Tiling | None = None,
) -> dict[Plane, Facts]:
    """Facts of every image and mask of a dataset.

    Args:
        name: The dataset's name.
        entries: Its slices.
        window: For images of more than 8 bits.
        index: Memory of files; saved when something was decoded.
        reporter: Receives progress.
        tiling: That the entries are tiles of.

    Raises:
        ImageError: A file that cannot be read; of several the first.
    """
    images = _by_volume([entry.image for entry in entries])
    masks = _by_volume([entry.mask for entry in entries if entry.mask is not None])
    image_facts = partial(_image_facts, window)
    jobs: list[tuple[str, list[Plane], Callable[[Plane], Facts]]] = [
        *((question_of("image", v[0], window, tiling), v, image_facts) for v in images),
        *((question_of("mask", v[0], None, tiling), v, _mask_facts) for v in masks),
    ]
    new = [job for job in jobs if not _known(index, job[0], job[1])]

    def answer(
        job: tuple[str, list[Plane], Callable[[Plane], Facts]], tick: Callable[[], None]
    ) -> Iterator[tuple[Plane, Facts]]:
        question, planes, read = job
        found = index.answer(planes[0].path, question, partial(_facts_of, planes, read, tick))
        return zip(planes, found, strict=True)

    # Decoding releases the interpreter's lock, so threads share the cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            if not new:
                described = [answer(job, lambda: None) for job in jobs]
            else:
                total = sum(len(planes) for _, planes, _ in new)
                with reporter.task(
                    f"Reading {name}", total, "images" if tiling is None else "tiles"
                ) as task:
                    tick = _counted(task)
                    described = list(pool.map(lambda job: answer(job, tick), jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            index.save()
    return {plane: facts for part in described for plane, facts in part}


def _by_volume(planes: Sequence[Plane]) -> list[list[Plane]]:
    volumes: dict[object, list[Plane]] = {}
    for plane in planes:
        volumes.setdefault(plane.volume, []).append(plane)
    return list(volumes.values())


def _known(index: FileIndex, question: str, planes: Sequence[Plane]) -> bool:
    return index.lookup(planes[0].path, question) is not None


def _facts_of(
    planes: Sequence[Plane], read: Callable[[Plane], Facts], tick: Callable[[], None], _: Path
) -> list[Facts]:
    found = []
    for plane in planes:
        found.append(read(plane))
        tick()
    return found


def _image_facts(window: GreyWindow | None, plane: Plane) -> Facts:
    if is_large(*plane_size(plane)):
        return _large_facts(plane, lambda part: read_image(part, window))
    pixels = read_image(plane, window)
    return {"shape": list(pixels.shape), "sha256": pixel_sha256(pixels)}


def _mask_facts(plane: Plane) -> Facts:
    counts: Counter[int] = Counter()
    if is_large(*plane_size(plane)):
        facts = _large_facts(plane, read_mask, counts)
    else:
        pixels = read_mask(plane)
        counts.update(_counts(pixels))
        facts = {"shape": list(pixels.shape), "sha256": pixel_sha256(pixels)}
    return {**facts, "values": {str(value): counts[value] for value in sorted(counts)}}


def _large_facts(
    plane: Plane, read: Callable[[Plane], np.ndarray], counts: Counter[int] | None = None
) -> Facts:
    """The same facts of a plane that is not held: those of its parts, one below the other.

    Args:
        plane: Which.
        read: Reads a part of it.
        counts: Receives the pixels of each value.
    """
    parts = list(strips(plane))
    first = read(parts[0])
    # Labels are 64-bit numbers where one of them needs it, and that may be the last.
    wide = first.dtype != np.uint8 or (
        not _is_narrow(plane) and any(read(part).dtype != np.uint8 for part in parts[1:])
    )
    size = plane_size(plane)
    digest = PixelDigest(size, np.int64 if wide else np.uint8)
    for part in parts:
        pixels = first if part is parts[0] else read(part)
        digest.update(pixels)
        if counts is not None:
            counts.update(_counts(pixels))
    return {"shape": list(size), "sha256": digest.hexdigest()}


def _is_narrow(plane: Plane) -> bool:
    return open_volume(plane.path, plane.inner).dtype in (np.uint8, np.bool_)


def _counts(
    pixels: UInt8[np.ndarray, "row col"] | Int64[np.ndarray, "row col"],
) -> dict[int, int]:
    """How many pixels each value has."""
    if pixels.dtype == np.uint8:
        bins = np.bincount(pixels.ravel(), minlength=256)
        values = np.flatnonzero(bins)
        found = bins[values]
    else:
        values, found = np.unique(pixels, return_counts=True)
    return dict(zip(values.tolist(), found.tolist(), strict=True))


def _counted(task: Task) -> Callable[[], None]:
    """Advance from several threads, one at a time."""
    lock = threading.Lock()

    def tick() -> None:
        with lock:
            task.advance()

    return tick
