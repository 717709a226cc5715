"""Plain Zarr and OME-Zarr, by zarr-python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from emcache.data.volumes.base import (
    NM_PER_UNIT,
    ArrayVolume,
    VoxelSize,
    check_chunks,
    missing_file,
)
from emcache.errors import ImageError
from emcache.storage.zarr_arrays import ZARR_DAMAGE

# Codecs that only move bytes about. Others are not tried: one of numcodecs unpickles, and so runs,
# what a chunk holds; that newer versions of it refuse to is not relied on.
_CODECS = frozenset(
    {
        *(
            "adler32",
            "astype",
            "bitround",
            "blosc",
            "bytes",
            "bz2",
            "cast_value",
            "crc32",
            "crc32c",
        ),
        *("delta", "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma"),
        *("packbits", "pcodec", "quantize", "scale_offset", "sharding_indexed", "shuffle"),
        *("transpose", "zfpy", "zlib", "zstd"),
    }
)
_MARKS = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((path / mark).is_file() for mark in _MARKS)


def open_zarr(path: Path, inner: str) -> ArrayVolume:
    """Open an array, or the finest level of an OME-Zarr image (versions 0.4 and 0.5).

    Raises:
        ImageError: Nothing there, or no volume.
    """
    name = f"{path}:/{inner}" if inner else str(path)
    if not path.exists():
        raise missing_file(path)
    try:
        node = zarr.open(LocalStore(path, read_only=True), path=inner, mode="r")
        if isinstance(node, zarr.Array):
            return _volume(name, node, path, None)
        attributes: Any = node.attrs.asdict()
        attributes = attributes.get("ome", attributes)
        images = attributes.get("multiscales")
        if not images:
            arrays = ", ".join(f"{path.name}:/{key}" for key, _ in sorted(node.arrays()))
            raise ImageError(
                f"{name} is a Zarr group and no OME-Zarr image; expected one array: name it"
                f"{f', as {arrays}' if arrays else ' by its path'}.",
                subject=name,
            )
        finest = node[images[0]["datasets"][0]["path"]]
        if not isinstance(finest, zarr.Array):
            raise TypeError("its first level is not an array")
        return _volume(name, finest, path, _voxel_size(images[0], name))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(
            f"{name} is not there; check the path within {path.name}.", subject=name
        ) from None
    except ZARR_DAMAGE as error:
        raise ImageError(
            f"{name} cannot be read as Zarr ({error!s:.400}); restore it, or name another array.",
            subject=name,
        ) from None


def _volume(
    name: str, array: zarr.Array[Any], path: Path, voxel_size_nm: VoxelSize | None
) -> ArrayVolume:
    """An array, once it is known to hold nothing but numbers in this very folder.

    Raises:
        ImageError: It lies elsewhere, or is coded in a way that is not tried.
    """
    if not (path / array.path).resolve().is_relative_to(path.resolve()):
        raise ImageError(
            f"{name} is a link that leaves {path.name}; expected the array in that folder: copy it "
            f"there.",
            subject=name,
        )
    metadata = array.metadata.to_dict()
    if unknown := sorted(set(_codec_names(metadata)) - _CODECS):
        raise ImageError(
            f"{name} is coded by {unknown[0]!r}, which is not read; save it with one of "
            f"{', '.join(sorted(_CODECS))}.",
            subject=name,
        )
    check_chunks(name, array.chunks)
    check_chunks(name, array.shards or ())
    return _ZarrVolume(name, array, voxel_size_nm)


def _codec_names(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Every codec that an array's metadata of either version name, also within shards."""
    for key in ("codecs", "index_codecs", "filters", "compressor"):
        listed = metadata.get(key) or ()
        for codec in [listed] if isinstance(listed, Mapping) else listed:
            yield str(codec.get("id") or codec.get("name")).removeprefix("numcodecs.")
            yield from _codec_names(codec.get("configuration") or {})


class _ZarrVolume(ArrayVolume):
    def _gather(self, place: list[Any]) -> np.ndarray:
        try:
            return super()._gather(place)
        except ZARR_DAMAGE as error:
            raise ImageError(
                f"a chunk of {self.name} cannot be read ({error!s:.400}); restore it.",
                subject=self.name,
            ) from None


def _voxel_size(image: Mapping[str, Any], name: str) -> VoxelSize | None:
    """From the scales of the finest level and of the image, by the units of the axes.

    Raises:
        ImageError: Axes in another order than z, y, x.
    """
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image.get("axes", [])]
    names = [str(axis.get("name")) for axis in axes][-3:]
    if axes and names not in (["z", "y", "x"], ["y", "x"]):
        raise ImageError(
            f"{name} has the axes {', '.join(names)}; expected z, y, x in this order: save it so.",
            subject=name,
        )
    nanometres = [NM_PER_UNIT.get(str(axis.get("unit", "")).lower()) for axis in axes][-3:]
    if len(nanometres) != 3 or None in nanometres:
        return None
    sizes = [float(unit) for unit in nanometres if unit is not None]
    finest = image["datasets"][0]
    for place in (finest, image):
        for change in place.get("coordinateTransformations", []):
            if change.get("type") == "scale":
                scale: Sequence[float] = change["scale"][-3:]
                sizes = [size * float(factor) for size, factor in zip(sizes, scale, strict=True)]
    z, y, x = sizes
    return (z, y, x) if min(sizes) > 0 else None
