import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emcache.cache.inputs import normalise
from emcache.data.resize import Preprocessing, occupancy, resize_mask
from emcache.errors import ImageError, UsageError


@pytest.mark.parametrize(
    ("longest", "patch", "shape", "size"),
    [
        (1022, 14, (768, 1024), (756, 1022)),
        (1022, 14, (1024, 1024), (1022, 1022)),
        (1022, 16, (1024, 1024), (1008, 1008)),
        (1008, 14, (1024, 1024), (1008, 1008)),
        (266, 14, (1024, 1024), (266, 266)),
        (14, 14, (20, 20), (14, 14)),
    ],
)
def test_sizes_of_the_study(
    longest: int, patch: int, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    assert Preprocessing(longest, patch).size_of(*shape) == size


@given(st.integers(14, 2000), st.integers(14, 3000), st.integers(14, 3000))
def test_size_is_the_largest_that_fits(longest: int, height: int, width: int) -> None:
    preprocessing = Preprocessing(longest, 14)
    exact = [side * longest / max(height, width) for side in (height, width)]
    if min(exact) < 14:
        return
    for side, ideal in zip(preprocessing.size_of(height, width), exact, strict=True):
        assert side % 14 == 0
        assert side <= ideal + 1e-6 < side + 14 + 1e-6


def test_below_one_patch_offers_the_nearest_size() -> None:
    with pytest.raises(UsageError, match="below one patch of 14 px; the nearest valid size is 14"):
        Preprocessing(13, 14)
    with pytest.raises(ImageError, match="a slice of 10 x 2000 pixels"):
        Preprocessing(266, 14).size_of(10, 2000)


def test_mask_is_sampled_at_pixel_centres() -> None:
    mask = np.random.default_rng(0).integers(0, 256, (97, 131), dtype=np.uint8)
    preprocessing = Preprocessing(70, 14)
    rows, columns = preprocessing.size_of(*mask.shape)
    at_row = ((np.arange(rows) + 0.5) * 97 / rows).astype(int)
    at_column = ((np.arange(columns) + 0.5) * 131 / columns).astype(int)
    expected = mask[at_row[:, None], at_column[None, :]]
    np.testing.assert_array_equal(resize_mask(mask, preprocessing.size_of(*mask.shape)), expected)


def test_normalise_equals_the_definition() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4)
    normal = normalise(pixels)
    assert normal.shape == (1, 3, 3, 4)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = (pixels[0].double() / 255 - mean) / std
        torch.testing.assert_close(normal[0, channel].double(), expected, atol=1e-6, rtol=0)


def test_occupancy_counts_pixels_of_each_patch() -> None:
    mask = np.zeros((28, 42), dtype=np.uint8)
    mask[0, 0] = mask[13, 13] = mask[14, 41] = 1
    expected = np.array([[2, 0, 0], [0, 0, 1]]) / 196
    np.testing.assert_allclose(occupancy(mask, 14), expected, atol=1e-7)
