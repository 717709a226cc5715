"""A predicted volume as OME-Zarr: the slices, their labels, and the objects in three dimensions."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from emcache.data.images import PageSize
from emcache.data.volumes.base import VoxelSize
from emcache.evaluation.objects import label_objects
from emcache.evaluation.ome_zarr import LABELS, MultiscaleWriter, image_label, list_labels
from emcache.evaluation.outputs import PARTIAL, Pages, PlannedFile, Rows, Writers, picture_writer
from emcache.storage import atomic

MASK, OBJECTS = "mask", "objects"
"""Names of the label images."""


@contextmanager
def volume_writers(
    file: PlannedFile, names: Mapping[int, str], voxel_size_nm: VoxelSize | None
) -> Iterator[Writers]:
    """Open the results of a volume; they take their names when the block ends, and not before.

    Args:
        file: The input, and where its results go.
        names: Of the classes by their labels.
        voxel_size_nm: Along z, y and x; None where unknown.
    """
    assert file.objects is not None  # noqa: S101 - the caller has seen that it is a volume
    shape = (len(file.pages), *file.pages[0])
    with ExitStack() as stack:
        store = stack.enter_context(_folder(file.mask))

        def image(store: Path, path: str, dtype: Any, **about: Any) -> MultiscaleWriter:
            return MultiscaleWriter(store, path, shape, np.dtype(dtype), voxel_size_nm, about)

        probability = None
        if file.probability is not None:
            probability = _VolumePages(
                image(stack.enter_context(_folder(file.probability)), "", np.float32)
            )
        greys = _VolumePages(image(store, "", np.uint8))
        mask = image(store, f"{LABELS}/{MASK}", np.uint8, **image_label(names))
        list_labels(store, [MASK, OBJECTS])
        write = Writers(_VolumePages(mask), probability, picture_writer(file, stack), greys)
        yield write
        objects = image(store, f"{LABELS}/{OBJECTS}", np.uint32, **image_label())
        scratch = stack.enter_context(_scratch(file.mask))
        labels = zarr.open_array(LocalStore(store / LABELS / MASK / "0"), mode="r")
        table = label_objects(labels, names, voxel_size_nm, scratch, objects.append)
        table.write_parquet(buffer := BytesIO())
        atomic.write_bytes(file.objects, buffer.getvalue())
        write.objects.append(table)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A new folder, which takes its name when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(path) as partial:
        yield partial
        # What stands there may be replaced: the plan has seen to it.
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A new folder beside another one, which is removed unless it has got another name."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _VolumePages(Pages):
    def __init__(self, image: MultiscaleWriter) -> None:
        self._image = image

    def begin(self, size: PageSize) -> None:
        pass

    def append(self, rows: Rows) -> None:
        self._image.append(rows)

    def end(self) -> None:
        pass
