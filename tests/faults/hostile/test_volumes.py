"""Hostile volumes: HDF5, MRC and Zarr."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import zarr
from hostile import (
    STACK,
    Field,
    as_json,
    attempt,
    cases,
    damaged,
    look_at_volume,
    no_fields,
    replaced,
    twisted,
)
from hypothesis import given
from hypothesis import strategies as st


def mrc_fields(data: bytes) -> list[Field]:
    return [(place, "<I") for place in range(0, 256, 4)]


def hdf5_fields(data: bytes) -> list[Field]:
    return [
        (place, form) for place in range(0, min(len(data), 4000), 2) for form in ("<H", "<I", "<Q")
    ]


@pytest.fixture(scope="module")
def hdf5_bases(place: Path) -> dict[str, bytes]:
    bases = {}
    for name, how in {
        "plain": {},
        "chunked": {"chunks": (1, 8, 8), "compression": "gzip", "shuffle": True},
    }.items():
        path = place / f"base-{name}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", data=STACK, **how).attrs["resolution"] = (40.0, 4.0, 4.0)
            file.create_dataset("more/mask", data=STACK // 128)
        bases[name] = path.read_bytes()
    return bases


@cases(90, 700)
@given(data=st.data())
def test_hdf5(place: Path, hdf5_bases: dict[str, bytes], data: st.DataObject) -> None:
    name, content = data.draw(damaged(hdf5_bases, hdf5_fields))
    path = place / f"{name}.h5"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    inner = data.draw(st.sampled_from(["raw", "raw", "more/mask", "gone", ""]))
    attempt("hdf5", *look_at_volume(path, inner))


@pytest.fixture(scope="module")
def mrc_bases(place: Path) -> dict[str, bytes]:
    bases = {}
    for name, data in {"u16": STACK.astype(np.uint16), "f32": STACK.astype(np.float32)}.items():
        with mrcfile.new(place / "base.mrc", overwrite=True) as file:
            file.set_data(data)
            file.voxel_size = (40, 40, 400)
        bases[name] = (place / "base.mrc").read_bytes()
    return bases


@cases(60, 700)
@given(data=st.data())
def test_mrc(place: Path, mrc_bases: dict[str, bytes], data: st.DataObject) -> None:
    name, content = data.draw(damaged(mrc_bases, mrc_fields))
    path = place / f"{name}.mrc"
    # A name of its own inode: an open map of the old file must not see the new one.
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    attempt("mrc", *look_at_volume(path))


@pytest.fixture(scope="module")
def zarr_volumes(place: Path) -> dict[str, Path]:
    plain = place / "plain.zarr"
    zarr.create_array(plain, data=STACK, chunks=(1, 16, 16))
    sharded = place / "sharded.zarr"
    zarr.create_array(sharded, data=STACK, chunks=(1, 8, 8), shards=(2, 16, 16))
    old = place / "old.zarr"
    zarr.create_array(old, data=STACK, chunks=(1, 16, 16), zarr_format=2)
    image = place / "image.zarr"
    group = zarr.open_group(image, mode="w")
    group.create_array("0", data=STACK, chunks=(2, 16, 16))
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    levels = [
        {
            "path": "0",
            "coordinateTransformations": [{"type": "scale", "scale": [40.0, 4.0, 4.0]}],
        }
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    return {"plain": plain, "sharded": sharded, "old": old, "image": image}


@cases(90, 700)
@given(data=st.data())
def test_zarr(zarr_volumes: dict[str, Path], data: st.DataObject) -> None:
    path = zarr_volumes[data.draw(st.sampled_from(sorted(zarr_volumes)))]
    files = sorted(p for p in path.rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(range(len(files))).map(files.__getitem__))
    texts = sorted(p for p in files if p.suffix == ".json" or p.name == ".zarray")
    if data.draw(st.integers(0, 3)):
        file = data.draw(st.sampled_from(range(len(texts))).map(texts.__getitem__))
        content = as_json(data.draw(twisted(json.loads(file.read_bytes()))))
    else:
        _, content = data.draw(damaged({"chunk": file.read_bytes()}, no_fields))
    with replaced({file: content}):
        attempt("zarr", *look_at_volume(path))
