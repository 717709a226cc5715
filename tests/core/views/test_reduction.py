"""Reduced tokens: their cosine similarities are those of the tokens, within what is stated."""

import numpy as np
import pytest

from emcache.errors import StoreError
from emcache.views.reduction import count_pixels, reduce_tokens


def tokens(seed=0, shape=(5, 7, 48), mean=4.0):
    """Nearly parallel, as those of a vision transformer."""
    random = np.random.default_rng(seed)
    common = mean * random.normal(size=shape[-1])
    return (common + random.normal(size=shape)).astype(np.float16)


def similarities(reduced, weights, positions):
    """As the page's program computes them."""
    deviations, share = reduced.deviations(), np.asarray(weights, np.float32)
    query = share @ deviations[positions]
    beside = share @ reduced.along_mean[positions] - share.sum() * reduced.mean_square
    return deviations @ query + share.sum() * reduced.along_mean + beside


def exact(grids, weights, positions):
    flat = np.concatenate([g.reshape(-1, g.shape[-1]) for g in grids]).astype(np.float64)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return (unit @ unit[positions].T) @ weights


@pytest.mark.parametrize("mean", [0.0, 4.0, 30.0])
@pytest.mark.parametrize(
    ("weights", "positions"), [([1.0], [3]), ([0.5, 0.5, -1.0], [0, 40, 66]), ([-1.0], [20])]
)
def test_similarities_are_those_of_the_tokens(mean, weights, positions):
    grids = [tokens(0, mean=mean), tokens(1, (4, 9, 48), mean)]
    reduced = reduce_tokens(grids, 48)
    found = similarities(reduced, weights, positions)
    true = exact(grids, weights, positions)
    assert reduced.explained == pytest.approx(1)
    assert np.abs(found - true).max() <= 3 * reduced.error.largest
    # A mean that all tokens share takes nothing of the precision of what tells them apart.
    assert np.abs(found - true).max() < 0.03 * true.std()


def test_the_stated_error_is_that_of_all_pairs():
    grids = [tokens(0), tokens(1)]
    reduced = reduce_tokens(grids, 8)
    count = 70
    everything = np.stack([similarities(reduced, [1.0], [i]) for i in range(count)])
    true = np.stack([exact(grids, [1.0], [i]) for i in range(count)])
    pairs = ~np.eye(count, dtype=bool)
    apart = np.abs(everything - true)[pairs]
    assert reduced.error.largest == pytest.approx(apart.max(), rel=1e-3)
    assert reduced.error.typical == pytest.approx(np.sqrt((apart**2).mean()), rel=1e-3)
    assert reduced.error.spread == pytest.approx(true[pairs].std(), rel=1e-3)
    assert reduce_tokens(grids, 32).error.typical < reduced.error.typical


def test_equal_tokens_are_equally_near():
    reduced = reduce_tokens([np.ones((2, 3, 8), np.float32)], 64)
    np.testing.assert_allclose(similarities(reduced, [1.0], [2]), 1, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_tokens_without_a_direction_are_refused(value):
    grid = tokens().astype(np.float32)
    grid[1, 2] = value
    with pytest.raises(StoreError, match="not finite or has no length"):
        reduce_tokens([grid], 8)


@pytest.mark.parametrize(
    ("shape", "grid"), [((6, 8), (3, 4)), ((7, 9), (3, 4)), ((5, 5), (5, 5)), ((2, 3), (4, 6))]
)
def test_pixels_are_counted_at_the_token_they_lie_in(shape, grid):
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], shape).astype(np.uint8)
    found = count_pixels(labels, 255, grid)
    expected = np.zeros((grid[0] * grid[1], 2), int)
    for row in range(shape[0]):
        for column in range(shape[1]):
            token = row * grid[0] // shape[0] * grid[1] + column * grid[1] // shape[1]
            expected[token, 0] += labels[row, column] in (1, 2)
            expected[token, 1] += labels[row, column] != 255
    np.testing.assert_array_equal(found, expected)
