"""Objects in three dimensions, found block by block."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from emcache.evaluation.objects import label_objects

NAMES = {1: "mitochondria", 2: "vesicles"}
VOXEL = (40.0, 4.0, 5.0)


def objects_of(
    labels: np.ndarray, scratch: Path, block: int, voxel: tuple[float, float, float] | None = VOXEL
) -> tuple[np.ndarray, pl.DataFrame]:
    stored = zarr.create_array(
        zarr.storage.MemoryStore(), shape=labels.shape, chunks=(2, 16, 16), dtype="uint8"
    )
    stored[:] = labels
    rows: list[np.ndarray] = []
    table = label_objects(stored, NAMES, voxel, scratch, rows.append, block)
    return np.concatenate(rows).reshape(labels.shape), table


def by_scipy(labels: np.ndarray) -> np.ndarray:
    """The same, held: components of each class, numbered by their first voxels."""
    found = np.zeros(labels.shape, np.int64)
    for value in NAMES:
        own, _ = ndimage.label(labels == value, np.ones((3, 3, 3)))
        found = np.where(own > 0, own + found.max(), found)
    numbers, first = np.unique(found, return_index=True)
    rank = np.zeros(found.max() + 1, np.int64)
    order = numbers[numbers > 0][np.argsort(first[numbers > 0])]
    rank[order] = np.arange(1, len(order) + 1)
    return rank[found]


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.uint8, st.tuples(*[st.integers(1, 7)] * 3), elements=st.sampled_from([0, 0, 1, 2])),
    st.one_of(st.integers(1, 20), st.integers(1, 400)),
)
def test_ids_are_those_of_the_whole_volume_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray, block: int
) -> None:
    scratch = tmp_path_factory.mktemp("scratch") / "ids"
    ids, table = objects_of(labels, scratch, block)
    assert np.array_equal(ids, by_scipy(labels))
    assert table["object_id"].to_list() == list(range(1, ids.max() + 1))


@pytest.mark.parametrize(("first", "second"), [((0, 3, 0), (1, 2, 1)), ((0, 2, 1), (1, 3, 0))])
def test_objects_meet_over_the_edge_of_a_block(
    tmp_path: Path, first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    """Two voxels that share a corner, in other sections and in other bands of rows."""
    labels = np.zeros((2, 6, 4), np.uint8)
    labels[first] = labels[second] = 1
    _, table = objects_of(labels, tmp_path / "ids", 12)
    assert table["voxels"].to_list() == [2]


def test_objects_meet_again_far_away(tmp_path: Path) -> None:
    """A spiral that crosses every border: one object, though its parts meet only at its end."""
    labels = np.zeros((9, 20, 20), np.uint8)
    labels[:, 0, 0] = labels[:, 19, 19] = 1
    labels[8, :, 0] = labels[8, 19, :] = 1
    for number, block in enumerate((40, 100, 400, 10**6)):
        ids, table = objects_of(labels, tmp_path / str(number), block)
        assert table.height == 1, block
        assert np.array_equal(ids > 0, labels > 0)


def test_the_table_says_where_objects_are(tmp_path: Path) -> None:
    labels = np.zeros((5, 20, 30), np.uint8)
    labels[1:4, 2:6, 10:20] = 2
    labels[0, 15, 0] = 1
    _, table = objects_of(labels, tmp_path / "ids", 600)
    small, large = table.rows(named=True)
    assert (small["class"], small["voxels"], small["n_slices"]) == ("mitochondria", 1, 1)
    assert (small["z"], small["y"], small["x"]) == (0, 15, 0)
    assert (large["class"], large["voxels"], large["n_slices"]) == ("vesicles", 120, 3)
    assert (large["z"], large["y"], large["x"]) == (2, 3.5, 14.5)
    assert (large["z_nm"], large["y_nm"], large["x_nm"]) == (80, 14, 72.5)
    assert large["volume_um3"] == pytest.approx(120 * 40 * 4 * 5 / 1e9)
    assert [large[f"{axis}_{end}"] for axis in "zyx" for end in ("first", "last")] == [
        *(1, 3),
        *(2, 5),
        *(10, 19),
    ]


def test_where_nothing_was_found_there_is_no_row(tmp_path: Path) -> None:
    ids, table = objects_of(np.zeros((2, 9, 9), np.uint8), tmp_path / "ids", 81)
    assert not ids.any()
    assert table.height == 0
    assert table.schema["class"] == pl.String


def test_an_unknown_voxel_size_leaves_nanometres_out(tmp_path: Path) -> None:
    _, table = objects_of(np.ones((2, 3, 3), np.uint8), tmp_path / "ids", 81, None)
    row = table.row(0, named=True)
    assert row["voxels"] == 18
    assert {row["volume_um3"], row["z_nm"], row["y_nm"], row["x_nm"]} == {None}
