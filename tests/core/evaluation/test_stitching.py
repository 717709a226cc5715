"""Logits of overlapping tiles, put together."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emcache.data.plane import Part
from emcache.data.tiling import Tiling
from emcache.evaluation import stitching
from emcache.evaluation.stitching import _weights, stitch

RANDOM = np.random.default_rng(0)


def stitched(logits_of: Callable[[Part], np.ndarray], size: tuple[int, int], tiling: Tiling):
    strips = list(stitch(*size, tiling, logits_of))
    assert [strip.row for strip in strips] == np.cumsum(
        [0, *(strip.logits.shape[1] for strip in strips[:-1])]
    ).tolist()
    return np.concatenate([strip.logits for strip in strips], axis=1)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    edge = draw(st.integers(1, 40))
    return Tiling(edge, draw(st.integers(0, edge - 1)))


@settings(deadline=None)
@given(st.integers(1, 120), st.integers(1, 90), tilings())
def test_tiles_of_one_picture_give_the_picture(rows: int, columns: int, tiling: Tiling) -> None:
    picture = RANDOM.normal(size=(2, rows, columns)).astype(np.float32)
    found = stitched(lambda part: picture[(slice(None), *part.slices)], (rows, columns), tiling)
    np.testing.assert_allclose(found, picture, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 300), tilings())
def test_weights_sum_up_to_one_and_are_one_where_a_single_tile_lies(side: int, tiling: Tiling):
    total, count = np.zeros(side), np.zeros(side, int)
    values = np.zeros(side)
    for tile in _weights(side, tiling):
        place = slice(tile.start, tile.start + len(tile.values))
        total[place] += tile.values
        values[place] = tile.values
        count[place] += 1
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (values[count == 1] == 1).all()


def test_one_tile_stands_as_it_is_to_the_bit() -> None:
    logits = RANDOM.normal(size=(3, 37, 51)).astype(np.float32)
    assert np.array_equal(stitched(lambda _: logits, (37, 51), Tiling(64, 16)), logits)


def test_there_is_no_step_between_tiles_that_disagree() -> None:
    """Tiles of 0 and of 1: within the overlap the blend rises by little from pixel to pixel."""
    tiling = Tiling(64, 32)

    def logits_of(part: Part) -> np.ndarray:
        return np.full((1, part.rows, part.columns), float(part.column > 0), np.float32)

    row = stitched(logits_of, (64, 96), tiling)[0, 0]
    assert row[0] == 0
    assert row[-1] == 1
    assert np.diff(row).max() < 0.05
    assert (np.diff(row) >= 0).all()


def test_no_more_than_a_row_of_tiles_is_held() -> None:
    asked: list[Part] = []

    def logits_of(part: Part) -> np.ndarray:
        asked.append(part)
        return np.zeros((1, part.rows, part.columns), np.float32)

    strips = stitch(400, 100, Tiling(50, 10), logits_of)
    first = next(strips)
    assert {part.row for part in asked} == {0}
    assert first.logits.shape == (1, 39, 100)


def test_strips_are_of_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = RANDOM.normal(size=(2, 100, 90)).astype(np.float32)
    monkeypatch.setattr(stitching, "_STRIP", 1000)

    def logits_of(part: Part) -> np.ndarray:
        return picture[(slice(None), *part.slices)]

    strips = list(stitch(100, 90, Tiling(50, 10), logits_of))
    assert max(strip.logits.shape[1] for strip in strips) == 11
    np.testing.assert_allclose(
        stitched(logits_of, (100, 90), Tiling(50, 10)), picture, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("side", [1, 7, 64])
def test_a_slice_smaller_than_a_tile(side: int) -> None:
    asked: list[Part] = []

    def logits_of(part: Part) -> np.ndarray:
        asked.append(part)
        return np.ones((1, part.rows, part.columns), np.float32)

    assert stitched(logits_of, (side, 64), Tiling(64, 32)).shape == (1, side, 64)
    assert asked == [Part(0, 0, side, 64)]
