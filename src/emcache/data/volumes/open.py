"""Opening a file by its name's ending."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from emcache.data.volumes.base import Volume, missing_file, too_large
from emcache.data.volumes.hdf5 import open_hdf5
from emcache.data.volumes.mrc import open_mrc
from emcache.data.volumes.picture import Picture
from emcache.data.volumes.tiff import TiffVolume
from emcache.errors import ImageError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Files with one picture."""
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
"""Files with one page or many."""
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
"""Files with arrays by name."""
MRC_SUFFIXES = (".mrc", ".rec", ".st", ".map")
"""Files with one volume."""

IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, *TIFF_SUFFIXES)
"""Endings that count as images where a folder is looked through."""

DECODER = "3:" + " ".join(
    f"{library}-{version(library)}" for library in ("pillow", "tifffile", "imagecodecs")
)
"""Changes whenever the same file might decode to other values."""

_KEPT_OPEN = 8


def open_volume(path: Path, inner: str = "") -> Volume:
    """Open an image file; the last few stay open, until they change.

    Args:
        path: A file, or the folder of a Zarr array or group.
        inner: Path of the array within HDF5 or Zarr.

    Raises:
        ImageError: Missing, empty, damaged, of no kind that is known, or no volume.
    """
    facts = _facts(path)
    try:
        if path.suffix.lower() in HDF5_SUFFIXES:
            # An open HDF5 file cannot be written by anyone, so it is let go of at once.
            return open_hdf5(path, inner)
        return _kept(path, inner, (facts.st_size, facts.st_mtime_ns, facts.st_ino))
    except MemoryError:
        raise too_large(str(path)) from None


def _facts(path: Path) -> os.stat_result:
    """A file's size and times, once it is known to be one that reading comes to an end of."""
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise missing_file(path) from None
    except (OSError, ValueError) as error:
        # A name that is too long, or one that no file can have.
        raise ImageError(
            f"{str(path)!r:.200} cannot be opened ({error}); check its name.", subject=path
        ) from None
    if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
        raise ImageError(
            f"{path} is a pipe or a device; expected a file: check its name.", subject=path
        )
    return facts


def _open(path: Path, inner: str) -> Volume:
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return Picture(path)
    if suffix == ".zarr" or path.is_dir():
        # Only here: zarr takes longer to import than all the rest.
        from emcache.data.volumes.zarr_array import is_zarr, open_zarr

        if suffix == ".zarr" or is_zarr(path):
            return open_zarr(path, inner)
    if inner:
        raise ImageError(
            f"{path} holds no arrays by name; expected HDF5 or Zarr before :/{inner}.",
            subject=path,
        )
    if suffix in TIFF_SUFFIXES:
        return TiffVolume(path)
    if suffix in MRC_SUFFIXES:
        return open_mrc(path)
    known = (*IMAGE_SUFFIXES, *HDF5_SUFFIXES, *MRC_SUFFIXES, ".zarr")
    raise ImageError(
        f"{path} is of no kind that can be read; expected one of {', '.join(known)}.", subject=path
    )


@lru_cache(_KEPT_OPEN)
def _kept(path: Path, inner: str, stamp: tuple[int, ...]) -> Volume:
    del stamp
    return _open(path, inner)
