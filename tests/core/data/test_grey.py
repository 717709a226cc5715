from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emcache.data.dataset import Dataset, load_dataset
from emcache.data.images import read_image
from emcache.data.plane import Plane
from emcache.data.register import add_dataset
from emcache.data.resize import GreyWindow, find_window
from emcache.errors import ImageError, UsageError
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace


def add(workspace: Workspace, root: Path, images: np.ndarray, **options: object) -> Dataset:
    (root / "raw.h5").unlink(missing_ok=True)
    with h5py.File(root / "raw.h5", "w") as file:
        file["raw"] = images
    table = {"images": "raw.h5:/raw", **options}
    return add_dataset(workspace, "deep", "stack", root, table, Quiet())[0]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_one_window_for_all_slices(workspace: Workspace, tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(3000, 400, (6, 50, 60))
    # A bright slice and a dark one stay so.
    images += np.linspace(-900, 900, 6)[:, None, None]
    images = images.astype(dtype)
    dataset = add(workspace, tmp_path, images)
    assert dataset.grey_window is not None
    step = 1 if dtype.startswith(("u", "i")) else float(np.ptp(images)) / 65536
    ends = ((dataset.grey_window.black, 0.1), (dataset.grey_window.white, 99.9))
    for found, percentile in ends:
        lower = np.percentile(images, percentile, method="lower")
        upper = np.percentile(images, percentile, method="higher")
        assert lower - 2 * step <= found <= upper + 2 * step
    shown = [read_image(item.image, item.grey_window) for item in dataset.slices]
    means = [plane.mean() for plane in shown]
    assert means == sorted(means)
    assert means[-1] > means[0] + 60
    low, high = dataset.grey_window.black, dataset.grey_window.white
    expected = np.clip((images[2].astype(float) - low) / (high - low), 0, 1) * 255
    assert np.abs(shown[2] - expected).max() <= 0.5 + 1e-6
    # It stands in the file, and new slices do not move it.
    stored = workspace.dataset_options("deep")["grey_window"]
    assert stored == [low, high]
    assert load_dataset(workspace, "deep") == dataset


def test_8_bits_in_a_wider_type_stand_as_they_are(workspace: Workspace, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(3, 250, (4, 20, 30)).astype(np.int32)
    dataset = add(workspace, tmp_path, images)
    assert dataset.grey_window == GreyWindow(0.0, 255.0)
    for item, plane in zip(dataset.slices, images, strict=True):
        np.testing.assert_array_equal(read_image(item.image, item.grey_window), plane)


def test_a_window_can_be_stated(workspace: Workspace, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 4096, (4, 20, 30)).astype(np.uint16)
    dataset = add(workspace, tmp_path, images, grey_window=[1000, 3000])
    assert dataset.grey_window == GreyWindow(1000.0, 3000.0)
    other, _ = add_dataset(
        workspace, "wide", "stack", tmp_path, {"images": "raw.h5:/raw"}, Quiet(), (0.0, 100.0)
    )
    assert other.grey_window is not None
    assert other.grey_window.black == images.min()
    assert other.grey_window.white == pytest.approx(images.max(), abs=1)
    assert [a.pixel_sha256 for a in dataset.slices] != [b.pixel_sha256 for b in other.slices]


def test_deep_png_and_tiff_give_the_same(workspace: Workspace, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 60_000, (3, 20, 30)).astype(np.uint16)
    for kind in ("png", "tif"):
        (tmp_path / kind).mkdir()
    for place, plane in enumerate(images):
        Image.fromarray(plane).save(tmp_path / "png" / f"{place}.png")
        tifffile.imwrite(tmp_path / "tif" / f"{place}.tif", plane)
    png, tif = (
        add_dataset(workspace, kind, "folder", tmp_path / kind, {}, Quiet())[0]
        for kind in ("png", "tif")
    )
    assert [s.pixel_sha256 for s in png.slices] == [s.pixel_sha256 for s in tif.slices]
    assert png.grey_window == tif.grey_window


def test_values_that_are_no_greys_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 20, 30)).astype(np.float32)
    images[1, 2, :4] = np.nan
    with pytest.raises(ImageError, match=r"z=1 has 4 values that are not finite"):
        add(workspace, tmp_path, images)
    with pytest.raises(ImageError, match=r"z=1 has 4 values that are not finite"):
        add(workspace, tmp_path, images, grey_window=[0, 1])
    with pytest.raises(ImageError, match="all values of 3 slices are 7"):
        add(workspace, tmp_path, np.full((3, 20, 30), 7.0))
    with pytest.raises(ImageError, match="type complex128; expected numbers"):
        add(workspace, tmp_path, np.zeros((3, 20, 30), complex))
    with pytest.raises(UsageError, match="from 3 to 1 is empty"):
        add(workspace, tmp_path, images, grey_window=[3, 1])
    with pytest.raises(UsageError, match="grey_window cannot be"):
        add(workspace, tmp_path, images, grey_window=[3, float("nan")])
    assert workspace.dataset_names() == []


def test_one_depth_in_a_dataset(workspace: Workspace, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "0.tif", np.arange(2000, dtype=np.uint16).reshape(40, 50))
    Image.new("L", (50, 40), 9).save(tmp_path / "1.png")
    with pytest.raises(ImageError, match=r"1\.png has 8 bits, and the dataset's grey_window"):
        add_dataset(workspace, "mixed", "folder", tmp_path, {}, Quiet())
    (tmp_path / "0.tif").rename(tmp_path / "2.tif")
    with pytest.raises(ImageError, match=r"2\.tif has values of type uint16, and no grey_window"):
        add_dataset(workspace, "mixed", "folder", tmp_path, {}, Quiet())
    assert read_image(Plane(tmp_path / "1.png")).max() == 9


@given(st.lists(st.integers(-40_000, 40_000), min_size=2, max_size=300, unique=True))
def test_percentiles_are_those_of_the_values(values: list[int]) -> None:
    plane = np.array(values)[None]
    window, _ = find_window(lambda: [("plane", plane)], (5.0, 95.0))
    if plane.min() >= 0 and plane.max() <= 255:
        assert window == GreyWindow(0.0, 255.0)
        return
    # To one value on either side, and to the histogram's grain.
    grain = max(1.0, np.ptp(plane) / 65536)
    for found, percentile in ((window.black, 5.0), (window.white, 95.0)):
        lower, upper = (
            float(np.percentile(plane, percentile, method=method)) for method in ("lower", "higher")
        )
        assert lower - 2 * grain <= found <= upper + 2 * grain or window == GreyWindow(
            float(plane.min()), float(plane.max())
        )
