"""Tiles of slices: together they are the slice, and each is read by itself."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emcache.data.dataset import load_dataset
from emcache.data.greys import GreyRule
from emcache.data.images import read_image, read_mask
from emcache.data.tiles import check_pictures, cut_dataset, preprocessing_with
from emcache.data.tiling import Tiling, cut
from emcache.errors import UsageError
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace

SIDES = st.integers(1, 200)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    edge = draw(st.integers(1, 80))
    return Tiling(edge, draw(st.integers(0, edge - 1)))


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, tilings())
def test_every_pixel_is_the_own_of_one_tile_that_has_it(rows: int, columns: int, tiling: Tiling):
    owners, held = np.zeros((rows, columns), int), np.zeros((rows, columns), int)
    for part, own in cut(rows, columns, tiling):
        assert (part.rows, part.columns) == (min(rows, tiling.edge), min(columns, tiling.edge))
        owners[own.slices] += 1
        held[part.slices] += 1
        inside = np.zeros((rows, columns), bool)
        inside[part.slices] = True
        assert inside[own.slices].all()
    assert (owners == 1).all()
    assert (held >= 1).all()


@given(SIDES, tilings())
def test_tiles_overlap_by_what_was_asked_for_and_are_no_more_than_needed(
    side: int, tiling: Tiling
) -> None:
    starts = tiling.starts(side)
    steps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == max(0, side - tiling.edge)
    # Rounding may take a pixel.
    assert (steps <= tiling.edge - tiling.overlap).all()
    fewest = 1 + -(-max(0, side - tiling.edge) // (tiling.edge - tiling.overlap))
    assert len(starts) == fewest


@pytest.mark.parametrize(
    ("edge", "overlap", "message"),
    [
        (100, 100, r"an overlap of 100 does not fit a tile of 100; expected 0 to 99 pixels, as 12"),
        (100, -1, r"an overlap of -1 does not fit"),
        (0, 0, r"a tile of 0 is no size"),
        (None, 10, r"an overlap of 10 is one of tiles, and there are none; give a tile too"),
    ],
)
def test_a_tiling_that_cannot_be_is_refused(edge: int | None, overlap: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tiling.of(edge, overlap)


def test_an_overlap_that_is_not_given_is_an_eighth() -> None:
    assert Tiling.of(1024, None) == Tiling(1024, 128)
    assert Tiling.of(None, None) is None


def test_tiles_are_slices_with_the_pixels_of_their_parts(cells: Workspace) -> None:
    whole = load_dataset(cells, "cells")
    tiles = cut_dataset(cells, whole, Tiling(56, 8), Quiet())
    assert tiles.whole is whole
    assert len(tiles.slices) == 4 * len(whole.slices)
    tile = tiles.slices[1]
    assert tile.tile is not None
    assert tile.id == f"{whole.slices[0].id}@0,28"
    assert tile.whole is whole.slices[0]
    assert tile.split == whole.slices[0].split
    place = tile.tile.part.slices
    assert np.array_equal(read_image(tile.image), read_image(tile.whole.image)[place])
    assert tile.mask is not None
    assert tile.whole.mask is not None
    mask = read_mask(tile.mask)
    assert np.array_equal(mask, read_mask(tile.whole.mask)[place])
    assert tile.foreground_pixels == (mask >= 128).sum()
    foreground = sum(t.own_pixels for t in tiles.slices)
    assert foreground == sum(item.height * item.width for item in whole.slices)


def test_tiles_are_decoded_once(cells: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_dataset(cells, "cells")
    first = cut_dataset(cells, whole, Tiling(40, 8), Quiet())

    def refuse(*_: object) -> None:
        raise AssertionError("a tile was read again")

    monkeypatch.setattr("emcache.data.facts.read_image", refuse)
    assert cut_dataset(cells, whole, Tiling(40, 8), Quiet()) == first
    with pytest.raises(AssertionError):
        cut_dataset(cells, whole, Tiling(40, 9), Quiet())


def test_a_tile_that_is_all_of_the_slice_is_read_as_the_slice(cells: Workspace) -> None:
    whole = load_dataset(cells, "cells")
    tiles = cut_dataset(cells, whole, Tiling(500, 0), Quiet())
    assert [t.image for t in tiles.slices] == [item.image for item in whole.slices]
    assert [t.pixel_sha256 for t in tiles.slices] == [item.pixel_sha256 for item in whole.slices]


def test_tiles_that_make_no_sense_are_refused(cells: Workspace, tmp_path: Path) -> None:
    dataset = load_dataset(cells, "cells")
    none = GreyRule()
    with pytest.raises(UsageError, match=r"--tile 10 is below one patch of 14 px; choose a larger"):
        preprocessing_with(Tiling(10, 0), none, 14, None, None, dataset)
    with pytest.raises(UsageError, match=r"--normalise clahe would spread the greys of each tile"):
        preprocessing_with(Tiling(40, 0), GreyRule("clahe"), 14, None, None, dataset)
    with pytest.raises(UsageError, match="--save-predictions keeps whole slices"):
        check_pictures(True, Tiling(40, 0))
    assert preprocessing_with(Tiling(40, 0), none, 14, None, None, dataset).longest_edge == 40
    assert preprocessing_with(None, none, 14, None, None, dataset).longest_edge == 1022
