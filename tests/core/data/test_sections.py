"""Large slices: what is known of them is what would be known if they were held."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from emcache.auditing.run import audit_dataset
from emcache.data import sections
from emcache.data.dataset import load_dataset
from emcache.data.facts import _image_facts, _mask_facts
from emcache.data.images import read_image, read_mask
from emcache.data.plane import Part, Plane
from emcache.data.register import add_dataset
from emcache.data.sections import (
    centre,
    read_reduced_image,
    read_reduced_mask,
    reduced_size,
    strips,
)
from emcache.findings import Verdict
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace, init_workspace

RANDOM = np.random.default_rng(0)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices are large from 50 x 50 pixels on, strips have 1,000, and a look 50 a side."""
    monkeypatch.setattr(sections, "LARGE", 2500)
    monkeypatch.setattr(sections, "_STRIP", 1000)
    monkeypatch.setattr(sections, "_SMALL_EDGE", 50)


def write(path: Path, values: np.ndarray) -> Plane:
    tifffile.imwrite(path, values, tile=(16, 16), photometric="minisblack")
    return Plane(path)


def late(value: int) -> np.ndarray:
    """Labels of which only the last one does not fit 8 bits."""
    labels = RANDOM.integers(0, 9, (90, 61), dtype=np.int32)
    labels[-1, -1] = value
    return labels


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.integers(0, 256, (90, 61), dtype=np.uint8),
        RANDOM.integers(0, 2000, (90, 61), dtype=np.uint16),
        late(7),
        late(70_000),
        late(-3),
    ],
    ids=["8 bits", "16 bits", "narrow labels", "one wide label", "one negative label"],
)
def test_facts_of_a_large_plane_are_those_of_the_same_plane_held(
    tmp_path: Path, request: pytest.FixtureRequest, values: np.ndarray
) -> None:
    plane = write(tmp_path / "a.tif", values)
    held = _mask_facts(plane)
    request.getfixturevalue("small_limits")
    assert len(list(strips(plane))) > 3
    assert _mask_facts(plane) == held
    if values.dtype == np.uint8:
        assert _image_facts(None, plane) == {"shape": held["shape"], "sha256": held["sha256"]}


@pytest.mark.usefixtures("small_limits")
def test_a_look_at_a_large_plane_is_that_at_the_whole_one_made_small(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (131, 201), dtype=np.uint8)
    plane = write(tmp_path / "a.tif", values)
    small = read_reduced_image(plane, None)
    assert small.shape == reduced_size(131, 201) == (27, 41)
    assert np.array_equal(small, np.asarray(Image.fromarray(values).reduce(5)))
    assert np.array_equal(read_reduced_mask(plane), values[::5, ::5])
    assert np.array_equal(read_mask(centre(plane)), values[40:90, 75:125])


@pytest.mark.usefixtures("small_limits")
def test_a_part_may_be_large_too(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (131, 201), dtype=np.uint8)
    plane = replace(write(tmp_path / "a.tif", values), part=Part(10, 20, 100, 150))
    part = values[10:110, 20:170]
    assert np.array_equal(np.concatenate([read_image(strip) for strip in strips(plane)]), part)
    assert np.array_equal(read_image(centre(plane)), part[25:75, 50:100])
    small = np.asarray(Image.fromarray(part).reduce(3))
    assert np.array_equal(read_reduced_image(plane, None), small)


def test_the_greys_of_large_slices_are_those_of_the_same_slices_held(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for number in range(3):
        values = RANDOM.integers(0, 3000, (90, 61), dtype=np.uint16)
        (tmp_path / "deep").mkdir(exist_ok=True)
        write(tmp_path / "deep" / f"{number}.tif", values)
    workspace, _ = init_workspace(tmp_path / "workspace")
    images = {"images": "*.tif"}
    held, _ = add_dataset(workspace, "held", "folder", tmp_path / "deep", images, Quiet())
    request.getfixturevalue("small_limits")
    large, record = add_dataset(workspace, "large", "folder", tmp_path / "deep", images, Quiet())
    assert large.grey_window == held.grey_window
    assert [s.pixel_sha256 for s in large.slices] == [s.pixel_sha256 for s in held.slices]
    assert "all 3 slices' values" in record.config["grey_rule"]


@pytest.mark.usefixtures("small_limits")
def test_a_small_plane_is_taken_as_it_is(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (40, 61), dtype=np.uint8)
    plane = write(tmp_path / "a.tif", values)
    assert centre(plane) is plane
    assert np.array_equal(read_reduced_image(plane, None), read_image(plane))
    assert np.array_equal(read_reduced_mask(plane), values)


def test_large_slices_are_audited_as_small_ones(
    cells: Workspace, request: pytest.FixtureRequest
) -> None:
    held, _ = audit_dataset(cells, load_dataset(cells, "cells"), Quiet())
    request.getfixturevalue("small_limits")
    # 70 x 70 pixels: each slice is large now, and looked at by halves.
    large, _ = audit_dataset(cells, load_dataset(cells, "cells"), Quiet())
    assert [check.name for check in large.checks] == [check.name for check in held.checks]
    assert large.verdict is held.verdict
    assert held.verdict is not Verdict.FAIL
