"""The same slices in every format are the same slices."""

import re
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import emcache.data.volumes.base
import emcache.data.volumes.tiff
import emcache.storage.file_index
from emcache.cache.labels import label_key
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Dataset, Selection, load_dataset
from emcache.data.images import page_sizes, read_image, read_mask
from emcache.data.plane import Plane
from emcache.data.register import add_dataset
from emcache.data.volumes.open import open_volume
from emcache.errors import EmcacheError, ImageError, PairingError, UsageError
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace

VOXEL = (40.0, 4.0, 5.0)


@pytest.fixture
def volumes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 40, 50), np.uint8)
    # Both ends are there, so that no format could take the data for anything but 8 bits.
    images[0, 0, :2] = 0, 255
    masks = np.where(rng.random((8, 40, 50)) > 0.6, 255, 0).astype(np.uint8)
    return images, masks


def chunks_of(data: np.ndarray) -> tuple[int, int, int]:
    """Chunks that end nowhere at the same time as the data."""
    return 3, data.shape[1] // 3 + 2, data.shape[2] // 3 + 1


def as_png(root: Path, name: str, data: np.ndarray) -> str:
    (root / name).mkdir()
    for place, plane in enumerate(data):
        Image.fromarray(plane).save(root / name / f"{place}.png")
    return f"{name}/*.png"


def tiff(**how: Any) -> Callable[[Path, str, np.ndarray], str]:
    def save(root: Path, name: str, data: np.ndarray) -> str:
        tifffile.imwrite(root / f"{name}.tif", data, photometric="minisblack", **how)
        return f"{name}.tif"

    return save


def as_ome_zarr(root: Path, name: str, data: np.ndarray) -> str:
    group = zarr.open_group(root / f"{name}.zarr", mode="w")
    group.create_array("0", data=data[None], chunks=(1, *chunks_of(data)))
    group.create_array("1", data=data[None, :, ::2, ::2], chunks=(1, *chunks_of(data)))
    axes = [
        {"name": "c", "type": "channel"},
        *({"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"),
    ]
    scale = [1.0, *(size / 1000 for size in VOXEL)]
    levels = [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]},
        {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": scale}]},
    ]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": levels}],
    }
    return f"{name}.zarr"


def as_zarr(root: Path, name: str, data: np.ndarray) -> str:
    zarr.open_group(root / "all.zarr", mode="a").create_array(
        name, data=data, chunks=chunks_of(data)
    )
    return f"all.zarr:/{name}"


def as_zarr_2(root: Path, name: str, data: np.ndarray) -> str:
    array = zarr.create_array(
        root / f"{name}.zarr", data=data, chunks=chunks_of(data), zarr_format=2
    )
    del array
    return f"{name}.zarr"


def as_hdf5(root: Path, name: str, data: np.ndarray) -> str:
    with h5py.File(root / "all.h5", "a") as file:
        array = file.create_dataset(f"volumes/{name}", data=data, chunks=True, compression="gzip")
        array.attrs["resolution"] = VOXEL
    return f"all.h5:/volumes/{name}"


def as_mrc(root: Path, name: str, data: np.ndarray) -> str:
    with mrcfile.new(root / f"{name}.mrc") as file:
        file.set_data(data)
        file.voxel_size = tuple(10 * size for size in reversed(VOXEL))
    return f"{name}.mrc"


OME = {
    "metadata": {
        "axes": "ZYX",
        **{f"PhysicalSize{axis}": size for axis, size in zip("ZYX", VOXEL, strict=True)},
        **{f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"},
    }
}
IMAGEJ = {
    "imagej": True,
    "resolution": (1000 / VOXEL[2], 1000 / VOXEL[1]),
    "metadata": {"axes": "ZYX", "unit": "um", "spacing": VOXEL[0] / 1000},
}
# Format, what writes it, and whether it states the voxel size.
FORMATS = {
    "pages": (tiff(metadata=None), False),
    "deflate": (tiff(metadata=None, compression="zlib", tile=(16, 16)), False),
    "lzw": (tiff(metadata=None, compression="lzw", predictor=True), False),
    "big": (tiff(bigtiff=True, byteorder=">"), False),
    "ome-tiff": (tiff(ome=True, **OME), True),
    "imagej": (tiff(**IMAGEJ), True),
    "ome-zarr": (as_ome_zarr, True),
    "zarr": (as_zarr, False),
    "zarr 2": (as_zarr_2, False),
    "hdf5": (as_hdf5, True),
    "mrc": (as_mrc, True),
}


def identity(workspace: Workspace, dataset: Dataset) -> tuple[object, ...]:
    options = ExtractOptions("tiny", "random:0", 42)
    job = plan_extraction(workspace, Selection(dataset.name, None), options, Quiet())
    labels = label_key(
        dataset.labelled,
        dataset.classes,
        job.recipe.preprocessing.identity(),
        [place.grid for place in job.places],
    )
    return [s.pixel_sha256 for s in dataset.labelled], job.fingerprint, labels


@pytest.fixture
def as_folder(
    workspace: Workspace, tmp_path: Path, volumes: tuple[np.ndarray, np.ndarray]
) -> tuple[object, ...]:
    (tmp_path / "png").mkdir()
    images, masks = (
        as_png(tmp_path / "png", name, data)
        for name, data in zip(("raw", "labels"), volumes, strict=True)
    )
    options = {"images": images, "masks": masks, "pair": "stem"}
    dataset, _ = add_dataset(workspace, "png", "folder", tmp_path / "png", options, Quiet())
    return identity(workspace, dataset)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_slices(
    name: str,
    workspace: Workspace,
    tmp_path: Path,
    volumes: tuple[np.ndarray, np.ndarray],
    as_folder: tuple[object, ...],
) -> None:
    save, states_voxel = FORMATS[name]
    root = tmp_path / "volumes"
    root.mkdir()
    files = [save(root, kind, data) for kind, data in zip(("raw", "seg"), volumes, strict=True)]
    options = {"images": files[0], "masks": files[1]}
    dataset, record = add_dataset(workspace, "stack", "stack", root, options, Quiet())
    assert identity(workspace, dataset) == as_folder
    assert [item.id for item in dataset.slices] == [str(place) for place in range(8)]
    assert "equally many (8 of each), are paired by position" in dataset.pairing
    if states_voxel:
        assert dataset.voxel_size_nm == pytest.approx(VOXEL, rel=1e-4)
    else:
        assert dataset.voxel_size_nm is None
    assert load_dataset(workspace, "stack") == dataset
    window = record.config["grey_window"]
    # MRC has no unsigned bytes: its library widens them, and they still stand as they are.
    assert window == ([0.0, 255.0] if name == "mrc" else None)


@pytest.mark.parametrize("name", ["pages", "lzw", "imagej", "ome-zarr", "hdf5", "mrc"])
@pytest.mark.parametrize("axis", ["y", "x"])
def test_volumes_are_cut_along_any_axis(
    name: str,
    axis: str,
    workspace: Workspace,
    tmp_path: Path,
    volumes: tuple[np.ndarray, np.ndarray],
) -> None:
    save, states_voxel = FORMATS[name]
    options = {"images": save(tmp_path, "raw", volumes[0]), "axis": axis}
    dataset, _ = add_dataset(workspace, "cut", "stack", tmp_path, options, Quiet())
    place = "zyx".index(axis)
    turned = np.moveaxis(volumes[0], place, 0)
    folder = tmp_path / "turned"
    folder.mkdir()
    as_png(folder, "raw", turned)
    images = {"images": "raw/*.png"}
    other, _ = add_dataset(workspace, "png", "folder", folder, images, Quiet())
    assert [s.pixel_sha256 for s in dataset.slices] == [s.pixel_sha256 for s in other.slices]
    if states_voxel:
        expected = (VOXEL[place], *(size for i, size in enumerate(VOXEL) if i != place))
        assert dataset.voxel_size_nm == pytest.approx(expected, rel=1e-4)


def test_every_page_in_a_folder_is_a_slice(
    workspace: Workspace, tmp_path: Path, volumes: tuple[np.ndarray, np.ndarray]
) -> None:
    for kind, data in zip(("images", "masks"), volumes, strict=True):
        (tmp_path / kind).mkdir()
        tifffile.imwrite(tmp_path / kind / "a.tif", data[:5], photometric="minisblack")
        Image.fromarray(data[5]).save(tmp_path / kind / "b.png")
    options = {"images": "images/*", "masks": "masks/*", "split": ["block:0.3:1"]}
    dataset, _ = add_dataset(workspace, "mixed", "folder", tmp_path, options, Quiet())
    assert [item.id for item in dataset.slices] == ["a/0", "a/1", "a/2", "a/3", "a/4", "b"]
    assert [item.split for item in dataset.slices] == ["train"] * 3 + ["gap"] + ["test"] * 2
    assert dataset.slices[3].image.below(tmp_path) == "images/a.tif#z=3"
    assert "page by page" in dataset.pairing
    tifffile.imwrite(tmp_path / "masks" / "a.tif", volumes[1][:4], photometric="minisblack")
    with pytest.raises(PairingError, match=r"a\.tif holds 5 pages, and its mask .* holds 4"):
        load_dataset(workspace, "mixed")
    options["pair"] = "order"
    with pytest.raises(PairingError, match="found 6 images and 5 masks"):
        add_dataset(workspace, "order", "folder", tmp_path, options, Quiet())


def test_a_changed_chunk_is_seen(
    workspace: Workspace,
    tmp_path: Path,
    volumes: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emcache.storage.file_index, "is_settled", lambda stamp: True)
    options = {"images": as_ome_zarr(tmp_path, "raw", volumes[0])}
    before, _ = add_dataset(workspace, "zarr", "stack", tmp_path, options, Quiet())
    array = zarr.open_group(tmp_path / "raw.zarr", mode="a")["0"]
    assert isinstance(array, zarr.Array)
    array[0, 6, 3, 3] = 1 + np.asarray(array[0, 6, 3, 3]) % 255
    after = load_dataset(workspace, "zarr")
    same = [a == b for a, b in zip(before.slices, after.slices, strict=True)]
    assert same == [True] * 6 + [False, True]


# What cannot be read


def spec_error(workspace: Workspace, root: Path, spec: str, **options: object) -> str:
    with pytest.raises(EmcacheError) as caught:
        add_dataset(workspace, "bad", "stack", root, {"images": spec, **options}, Quiet())
    assert workspace.dataset_names() == []
    return str(caught.value)


def test_bad_volumes_are_named(
    workspace: Workspace, tmp_path: Path, volumes: tuple[np.ndarray, np.ndarray]
) -> None:
    hdf5, ome = as_hdf5(tmp_path, "raw", volumes[0]), as_ome_zarr(tmp_path, "ome", volumes[0])
    as_zarr(tmp_path, "raw", volumes[0])
    tifffile.imwrite(tmp_path / "multi.ome.tif", volumes[0], ome=True, metadata={"axes": "CYX"})
    (tmp_path / "short.tif").write_bytes(
        (tmp_path / as_tif(tmp_path, volumes[0])).read_bytes()[:9000]
    )
    mrc = (tmp_path / as_mrc(tmp_path, "whole", volumes[0])).read_bytes()
    (tmp_path / "short.mrc").write_bytes(mrc[:-700])
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "text.mrc").write_text("no MRC")
    (tmp_path / "empty.tif").touch()
    with h5py.File(tmp_path / "all.h5", "a") as file:
        file["four"] = np.zeros((2, 2, 5, 5), np.uint8)
        file["away"] = h5py.ExternalLink("other.h5", "/raw")
        file["text"] = "words"
    for spec, reason in {
        "gone.tif": "gone.tif is not there",
        "gone.h5:/raw": "gone.h5 is not there",
        "gone.zarr": "gone.zarr is not there",
        "gone.mrc": "gone.mrc is not there",
        "all.h5": r"none is named; expected one of all.h5:/four, .*all.h5:/volumes/raw",
        "all.h5:/volumes": "has no array /volumes",
        "all.h5:/four": "2 x 2 x 5 x 5; expected a volume",
        "all.h5:/away": "has no array /away",
        "all.h5:/text": "of a single value; expected a volume",
        "all.zarr": r"no OME-Zarr image; expected one array: name it, as all.zarr:/raw",
        "all.zarr:/gone": "all.zarr:/gone is not there",
        f"{ome}:/0/0": "is not there|cannot be read",
        "multi.ome.tif": "axes C = 8; expected one stack of one channel",
        "short.tif": "short.tif cannot be decoded",
        "short.mrc": "short.mrc cannot be read as MRC",
        "text.h5": "text.h5 cannot be opened as HDF5",
        "text.mrc": "text.mrc cannot be read as MRC",
        "empty.tif": "empty.tif is empty",
        "raw.tif:/0": "holds no arrays by name",
        "../raw.tif": "leaves the root",
        f"{hdf5}/../..": "leaves the root",
        "notes.txt": "is of no kind that can be read|is not there",
    }.items():
        message = spec_error(workspace, tmp_path, spec)
        assert re.search(reason, message), (spec, message)


def as_tif(root: Path, data: np.ndarray) -> str:
    tifffile.imwrite(root / "raw.tif", data, photometric="minisblack", metadata=None)
    return "raw.tif"


def test_a_missing_library_names_the_line_that_installs_it(
    workspace: Workspace,
    tmp_path: Path,
    volumes: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specs = [as_hdf5(tmp_path, "raw", volumes[0]), as_mrc(tmp_path, "raw", volumes[0])]
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setitem(sys.modules, "mrcfile", None)
    for spec, extra in zip(specs, ("hdf5", "mrc"), strict=True):
        message = spec_error(workspace, tmp_path, spec)
        assert f"pip install 'emcache[{extra}]'" in message


def test_volumes_of_unequal_length_are_refused(
    workspace: Workspace, tmp_path: Path, volumes: tuple[np.ndarray, np.ndarray]
) -> None:
    images, masks = as_tif(tmp_path, volumes[0]), as_mrc(tmp_path, "seg", volumes[1][:7])
    with pytest.raises(PairingError, match="found 8 images and 7 masks"):
        add_dataset(
            workspace, "bad", "stack", tmp_path, {"images": images, "masks": masks}, Quiet()
        )
    with pytest.raises(UsageError, match="needs the file of the volume"):
        add_dataset(workspace, "bad", "stack", tmp_path, {}, Quiet())


def test_a_plane_that_claims_too_much_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "bomb.zarr", shape=(2, 1 << 20, 1 << 20), dtype="uint8")
    with pytest.raises(ImageError, match="claims 1048576 x 1048576 pixels"):
        open_volume(tmp_path / "bomb.zarr").read(0, 0)
    monkeypatch.setattr(emcache.data.volumes.tiff, "MOST_PIXELS", 40)
    tifffile.imwrite(tmp_path / "large.tif", np.zeros((6, 8), np.uint8))
    with pytest.raises(ImageError, match=r"claims 6 x 8 pixels; expected at most 40"):
        open_volume(Plane(tmp_path / "large.tif").path)


def test_sizes_are_checked_before_anything_of_their_length_is_made(tmp_path: Path) -> None:
    long = 1 << 40
    # From the smallest header of each kind that may claim any size.
    zarr.create_array(tmp_path / "a.zarr", shape=(3, long, 20), dtype="uint8", chunks=(1, 16, 16))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", shape=(3, long, 20), dtype="u1", chunks=(1, 16, 16))
    for place, inner in ((tmp_path / "a.zarr", ""), (tmp_path / "a.h5", "raw")):
        assert [len(page_sizes(Plane(place, inner, axis))) for axis in (0, 2)] == [3, 20]
        assert page_sizes(Plane(place, inner, 2))[0] == (3, long)
        with pytest.raises(ImageError, match=f"claims {long} planes; expected at most"):
            page_sizes(Plane(place, inner, 1))
        for axis in (0, 2):
            with pytest.raises(ImageError, match=f"claims .*{long}.* pixels; expected at most"):
                read_mask(Plane(place, inner, axis, 0))


def test_planes_of_many_chunks_are_read_in_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).integers(0, 256, (5, 37, 22), np.uint8)
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(2, 3, 4))
    zarr.create_array(tmp_path / "flat.zarr", data=data[0], chunks=(3, 4))
    zarr.create_array(tmp_path / "lead.zarr", data=data[None], chunks=(1, 2, 3, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=data, chunks=(2, 3, 4))
    for at_once in (1, 5, 13, 40):
        monkeypatch.setattr(emcache.data.volumes.base, "_CHUNKS_AT_ONCE", at_once)
        for name, inner in (("a.zarr", ""), ("lead.zarr", ""), ("a.h5", "raw")):
            volume = open_volume(tmp_path / name, inner)
            for axis, index in ((0, 3), (1, 20), (2, 21)):
                assert (volume.read(axis, index) == data.take(index, axis=axis)).all()
        flat = open_volume(tmp_path / "flat.zarr")
        assert (flat.read(0, 0) == data[0]).all()
        assert (flat.read(2, 5) == data[:1, :, 5]).all()
    monkeypatch.setattr(emcache.data.volumes.base, "MOST_CHUNKS", 77)
    with pytest.raises(ImageError, match="in 78 chunks a plane; expected at most 77"):
        open_volume(tmp_path / "a.h5", "raw").read(0, 0)


def test_a_ring_of_pages_is_refused(tmp_path: Path) -> None:
    """tifffile goes round in it; it looks for rings at the hundredth page alone."""
    for pages, back, how in ((3, 0, {}), (3, 1, {}), (150, 2, {}), (150, 2, {"ome": True})):
        path = tmp_path / f"{pages}-{back}-{len(how)}.tif"
        data = np.zeros((pages, 8, 8), np.uint8)
        tifffile.imwrite(path, data, photometric="minisblack", **({"metadata": None} | how))
        content = bytearray(path.read_bytes())
        starts: list[int] = []
        (start,) = struct.unpack_from("<I", content, 4)
        while start:
            starts.append(start)
            after = start + 2 + 12 * struct.unpack_from("<H", content, start)[0]
            (start,) = struct.unpack_from("<I", content, after)
        struct.pack_into("<I", content, after, starts[back])
        path.write_bytes(content)
        with pytest.raises(ImageError, match="a page that leads back to an earlier one"):
            open_volume(path)


PIXELS = (
    '<Pixels DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="{planes}" SizeC="1" '
    'SizeT="1">{data}</Pixels>'
)
MODULO = (
    "<StructuredAnnotations><XMLAnnotation><Value><Modulo>"
    '<ModuloAlongZ Type="lifetime" Start="0" End="{end}"/>'
    "</Modulo></Value></XMLAnnotation></StructuredAnnotations>"
)


@pytest.mark.parametrize(
    ("pixels", "more"),
    [
        (PIXELS.format(planes=1 << 40, data="<TiffData/>"), ""),
        (PIXELS.format(planes=3, data=f'<TiffData IFD="0" PlaneCount="{1 << 40}"/>'), ""),
        (PIXELS.format(planes=3, data="<TiffData/>"), MODULO.format(end=1 << 40)),
    ],
)
def test_an_ome_header_is_checked_before_lists_are_made(
    tmp_path: Path, pixels: str, more: str
) -> None:
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    header = f'<OME xmlns="{space}"><Image ID="Image:0">{pixels}</Image>{more}</OME>'
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for description in (header.encode(), None, None):
            plane = np.zeros((8, 8), np.uint8)
            file.write(plane, photometric="minisblack", description=description, metadata=None)
    with pytest.raises(ImageError, match=f"claims {1 << 40} planes; expected at most"):
        open_volume(tmp_path / "a.ome.tif")


@pytest.mark.real
def test_real_slices_in_every_format(
    workspace: Workspace, tmp_path: Path, few_vnc_root: Path
) -> None:
    shipped, _ = add_dataset(workspace, "vnc", "vnc", few_vnc_root, {}, Quiet())
    slices = shipped.labelled
    images = np.stack([read_image(item.image) for item in slices])
    masks = np.stack([read_mask(item.mask) for item in slices if item.mask is not None])
    expected = [(item.pixel_sha256, item.mask_sha256) for item in slices]
    whole = identity(workspace, shipped)
    for number, (name, (save, _)) in enumerate(FORMATS.items()):
        root = tmp_path / str(number)
        root.mkdir()
        files = [save(root, kind, data) for kind, data in zip("im", (images, masks), strict=True)]
        options = {"images": files[0], "masks": files[1]}
        dataset, _ = add_dataset(workspace, f"v{number}", "stack", root, options, Quiet())
        assert [(s.pixel_sha256, s.mask_sha256) for s in dataset.slices] == expected, name
        assert identity(workspace, dataset) == whole, name
        shutil.rmtree(root)
