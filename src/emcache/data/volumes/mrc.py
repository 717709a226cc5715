"""MRC, by mrcfile: mapped, so that a plane is read without the rest."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emcache.data.volumes.base import ArrayVolume, VoxelSize, missing_file, require
from emcache.errors import ImageError

_ANGSTROM_NM = 0.1
_HEADER_BYTES = 1024
# mrcfile only warns of a header that cannot be.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    Warning,
)


def open_mrc(path: Path) -> ArrayVolume:
    """Open an MRC file; rows are in the file's own order, which some programs show upside down.

    Raises:
        ImageError: No such file, or one that is damaged or no volume.
    """
    mrcfile = require("mrcfile", "mrc", path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _check_extended_header(path)
            file = mrcfile.mmap(path, mode="r")
            if file.data is None:
                raise ValueError("its header says nothing of its values")
            voxel = _voxel_size(file.voxel_size)
    except FileNotFoundError:
        raise missing_file(path) from None
    except _DAMAGE as error:
        raise ImageError(
            f"{path} cannot be read as MRC ({error}); restore the file.", subject=path
        ) from None
    if np.iscomplexobj(file.data):
        raise ImageError(
            f"{path} holds complex values; expected grey values: save it in another mode.",
            subject=path,
        )
    return ArrayVolume(str(path), file.data, voxel)


def _check_extended_header(path: Path) -> None:
    """Refuse an extended header longer than the file, which mrcfile would make room for."""
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES)
        rest = path.stat().st_size - len(header)
    # The machine stamp says in which order the bytes of numbers stand.
    order: Literal["big", "little"] = "big" if header[212:213] == b"\x11" else "little"
    claimed = int.from_bytes(header[92:96], order, signed=True)
    if not 0 <= claimed <= rest:
        raise ValueError(f"its extended header of {claimed} bytes is longer than the file")


def _voxel_size(stated: Any) -> VoxelSize | None:
    """In nanometres; None for 0, and for the 1 angstrom that programs write by default."""
    z, y, x = (float(stated[axis]) * _ANGSTROM_NM for axis in "zyx")
    unset = z == y == x and abs(z - _ANGSTROM_NM) < 1e-6
    return None if unset or not min(z, y, x) > 0 else (z, y, x)
