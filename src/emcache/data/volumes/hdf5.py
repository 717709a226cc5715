"""HDF5, by h5py: one array of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emcache.data.volumes.base import ArrayVolume, VoxelSize, check_chunks, missing_file, require
from emcache.errors import ImageError

# The file's own lock is asked for only where the file system has locks.
_LOCKING = "best-effort"
_MOST_NAMED = 5
# h5py reports damaged files by any of these.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def open_hdf5(path: Path, inner: str) -> ArrayVolume:
    """Open ``path:/inner``.

    The voxel size is read from the attribute ``resolution`` (nanometres, as CREMI writes it) or
    ``element_size_um`` (micrometres, as Ilastik and Fiji write it), both z, y, x.

    Raises:
        ImageError: No such file or array, or one that is not a volume.
    """
    h5py = require("h5py", "hdf5", path)
    if not path.exists():
        raise missing_file(path)
    try:
        file = h5py.File(path, "r", locking=_LOCKING)
    except OSError as error:
        raise ImageError(
            f"{path} cannot be opened as HDF5 ({error}); restore the file.", subject=path
        ) from None
    try:
        return _open_array(h5py, file, path, inner)
    except _DAMAGE as error:
        raise ImageError(
            f"{path}:/{inner} cannot be read ({error}); restore the file.", subject=path
        ) from None


def _open_array(h5py: Any, file: Any, path: Path, inner: str) -> ArrayVolume:
    try:
        found = file.get(inner) if inner else None
    except UnicodeDecodeError:
        # What HDF5 says of a link to a file that is not there may hold any bytes.
        found = None
    if not isinstance(found, h5py.Dataset):
        arrays: list[str] = []
        file.visititems(
            lambda name, item: arrays.append(name) if isinstance(item, h5py.Dataset) else None
        )
        listed = ", ".join(f"{path.name}:/{name}" for name in arrays[:_MOST_NAMED])
        what = f"has no array /{inner}" if inner else "holds arrays by name, and none is named"
        raise ImageError(
            f"{path} {what}; expected one of {listed or 'its arrays, of which it has none'}.",
            subject=path,
        )
    if found.file.filename != file.filename or found.is_virtual or found.external:
        raise ImageError(
            f"{path}:/{inner} keeps its values in another file; expected them in this one: copy "
            f"the array into it.",
            subject=path,
        )
    check_chunks(f"{path}:/{inner}", found.chunks or ())
    return _Hdf5Volume(f"{path}:/{inner}", found, _voxel_size(found.attrs))


class _Hdf5Volume(ArrayVolume):
    def _gather(self, place: list[Any]) -> np.ndarray:
        try:
            return super()._gather(place)
        except _DAMAGE as error:
            raise ImageError(
                f"{self.name} cannot be read ({error}); restore the file.", subject=self.name
            ) from None


def _voxel_size(attributes: Any) -> VoxelSize | None:
    for name, nanometres in (("resolution", 1.0), ("element_size_um", 1e3)):
        try:
            z, y, x = (float(value) * nanometres for value in attributes[name])
        except _DAMAGE:
            continue
        if min(z, y, x) > 0:
            return z, y, x
    return None
