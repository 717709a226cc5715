"""Large pages with their smaller copies."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from emcache.evaluation.pyramids import TILE, Spool, halved, level_sizes

RANDOM = np.random.default_rng(0)


def test_each_level_has_half_the_rows_and_columns() -> None:
    assert level_sizes(1030, 515) == [(1030, 515), (515, 258), (258, 129), (129, 65)]
    assert level_sizes(200, 256) == [(200, 256)]
    assert len(level_sizes(1, 1 << 30)) == 8


def test_labels_are_picked_and_greys_are_averaged() -> None:
    values = np.array([[0, 4, 9], [2, 2, 9], [8, 8, 1]], np.uint8)
    assert halved(values, labels=True).tolist() == [[0, 9], [8, 1]]
    # The last row and column count twice.
    assert halved(values, labels=False).tolist() == [[2, 9], [8, 1]]
    assert halved(values.astype(np.float32), labels=False).dtype == np.float32
    stack = RANDOM.normal(size=(3, 8, 6))
    expected = stack.reshape(3, 4, 2, 3, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(halved(stack, labels=False), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "step"), [("uint8", 7), ("uint8", 1100), ("float32", 7), ("float32", 512)]
)
def test_pages_come_back_whatever_rows_they_came_in(tmp_path: Path, dtype: str, step: int) -> None:
    pages = (RANDOM.random((2, 1100, 1301)) * 200).astype(dtype)
    labels = dtype == "uint8"
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for number, page in enumerate(pages):
            (home := tmp_path / str(number)).mkdir()
            spool = Spool(home, (1100, 1301), np.dtype(dtype))
            for row in range(0, 1100, step):
                spool.append(page[row : row + step])
            spool.write(tiff)
            spool.close()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == 2
        for page, expected in zip(file.pages, pages, strict=True):
            levels = [page, *page.pages]
            assert [level.shape for level in levels] == level_sizes(1100, 1301)
            assert all(level.tilewidth == TILE for level in levels)
            for level in levels:
                assert np.array_equal(level.asarray(), expected)
                expected = halved(expected, labels=labels)
