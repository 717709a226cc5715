"""Parts of planes, as every format reads them: the same values as those of the whole plane."""

import os
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emcache.data.images import read_values
from emcache.data.plane import Part, Plane
from emcache.data.volumes import base
from emcache.data.volumes.open import open_volume
from emcache.data.volumes.picture import Picture
from emcache.errors import ImageError

VOLUME = np.random.default_rng(0).integers(0, 256, (3, 70, 90), dtype=np.uint8)
PLANE = VOLUME[1]


def tiff(path: Path, values: np.ndarray = PLANE, **how: object) -> Plane:
    tifffile.imwrite(path, values, **{"photometric": "minisblack", **how})
    return Plane(path)


def planes(folder: Path) -> dict[str, Plane]:
    """The same plane in every format that reads parts in a way of its own."""
    Image.fromarray(PLANE).save(folder / "a.png")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("v", data=VOLUME, chunks=(2, 16, 16))
    with mrcfile.new(folder / "a.mrc") as file:
        file.set_data(VOLUME.astype(np.int16))
    zarr.save(folder / "a.zarr", VOLUME)
    tifffile.imwrite(folder / "stack.tif", VOLUME, photometric="minisblack", compression="zlib")
    tifffile.imwrite(folder / "mapped.tif", VOLUME, imagej=True)
    tifffile.imwrite(folder / "white.tif", PLANE, photometric="miniswhite", tile=(16, 32))
    colour = np.repeat(PLANE[..., None], 3, axis=2)
    return {
        "png": Plane(folder / "a.png"),
        "hdf5": Plane(folder / "a.h5", "v", 0, 1),
        "mrc": Plane(folder / "a.mrc", "", 0, 1),
        "zarr": Plane(folder / "a.zarr", "", 0, 1),
        "hdf5 along y": Plane(folder / "a.h5", "v", 1, 40),
        "zarr along x": Plane(folder / "a.zarr", "", 2, 5),
        "stack": Plane(folder / "stack.tif", "", 0, 1),
        "stack along y": Plane(folder / "stack.tif", "", 1, 40),
        "mapped stack": Plane(folder / "mapped.tif", "", 0, 1),
        "white": Plane(folder / "white.tif"),
        "strips": tiff(folder / "strips.tif", rowsperstrip=7, compression="lzw"),
        "one strip": tiff(folder / "strip.tif"),
        "tiles": tiff(folder / "tiles.tif", tile=(16, 32)),
        "big-endian": tiff(folder / "big.tif", PLANE.astype(">u2"), byteorder=">"),
        "colour": tiff(folder / "rgb.tif", colour, photometric="rgb", tile=(32, 32)),
        "planar": tiff(
            folder / "planar.tif",
            np.moveaxis(colour, -1, 0).copy(),
            photometric="rgb",
            planarconfig="separate",
            tile=(32, 32),
        ),
    }


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plane]:
    return planes(tmp_path_factory.mktemp("planes"))


KINDS = [
    *("png", "hdf5", "mrc", "zarr", "hdf5 along y", "zarr along x", "stack", "stack along y"),
    *("mapped stack", "white", "strips", "one strip", "tiles", "big-endian", "colour", "planar"),
]


def test_all_kinds_are_tried(stored: dict[str, Plane]) -> None:
    assert set(KINDS) == set(stored)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_that_of_the_whole(stored: dict[str, Plane], kind: str, data: st.DataObject):
    plane = stored[kind]
    whole = read_values(plane)
    rows, columns = whole.shape[:2]
    row = data.draw(st.integers(0, rows - 1))
    column = data.draw(st.integers(0, columns - 1))
    part = Part(
        row,
        column,
        data.draw(st.integers(1, rows - row)),
        data.draw(st.integers(1, columns - column)),
    )
    values = read_values(Plane(plane.path, plane.inner, plane.axis, plane.index, part))
    assert values.dtype == whole.dtype
    assert values.flags.writeable
    assert whole.flags.writeable
    assert np.array_equal(values, whole[part.slices])


def test_strips_of_many_chunks_are_put_together(
    stored: dict[str, Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_CHUNKS_AT_ONCE", 3)
    plane = stored["hdf5"]
    part = Part(5, 9, 60, 77)
    values = read_values(Plane(plane.path, plane.inner, 0, 1, part))
    assert np.array_equal(values, PLANE[part.slices])


@pytest.mark.parametrize("kind", ["tiles", "strips", "one strip"])
def test_of_a_tiff_no_more_is_decoded_than_is_asked_for(
    stored: dict[str, Plane], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the whole page was decoded")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    plane = Plane(stored[kind].path, part=Part(3, 4, 5, 6))
    assert np.array_equal(read_values(plane), PLANE[3:8, 4:10])


def test_a_picture_is_decoded_once_for_all_of_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    real = Picture._read

    def count(self: Picture, axis: int, index: int) -> np.ndarray:
        decoded.append(self._path)
        return real(self, axis, index)

    monkeypatch.setattr(Picture, "_read", count)
    path = tmp_path / "a.png"
    for number, values in enumerate((PLANE, PLANE + 1)):
        Image.fromarray(values).save(path)
        # A file that is written again is read again, though both may fall into one tick.
        os.utime(path, ns=(number, number))
        for row in range(0, 60, 10):
            part = read_values(Plane(path, part=Part(row, 5, 10, 20)))
            assert np.array_equal(part, values[row : row + 10, 5:25])
            # Whoever changes it changes nothing of what is kept.
            part[:] = 0
    assert decoded == [path, path]


@pytest.mark.parametrize("part", [Part(60, 0, 20, 5), Part(0, 88, 5, 5), Part(-1, 0, 5, 5)])
def test_what_is_not_there_is_refused(stored: dict[str, Plane], part: Part) -> None:
    volume = open_volume(stored["tiles"].path)
    with pytest.raises(ImageError, match=r"has a plane of 70 x 90 pixels, and no part"):
        volume.read(0, 0, part)


def test_a_part_has_a_name(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "a.h5", "v", 0, 3, Part(1, 2, 30, 40))
    assert plane.below(tmp_path) == "a.h5:/v#z=3@1,2+30x40"
