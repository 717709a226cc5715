"""Which slices are shown, tokens as colours, and mistakes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emcache.data.dataset import Slice
from emcache.data.plane import Plane
from emcache.errors import DatasetError, UsageError
from emcache.training.counts import Counts
from emcache.views.choice import choose_slices, named_slices
from emcache.views.colours import pca_colours
from emcache.views.overlays import MISTAKES, filled, mistakes


def slices(count):
    one = Slice(id="0", image=Plane(Path("x")), split=None, height=2, width=2, pixel_sha256="")
    return [replace(one, id=str(number)) for number in range(count)]


def ids(chosen):
    return [item.id for item in chosen]


def test_slices_at_even_distances_are_the_middles_of_equal_stretches():
    assert ids(choose_slices(slices(10), 2, "spread")) == ["2", "7"]
    assert ids(choose_slices(slices(10_000), 4, "spread")) == ["1250", "3750", "6250", "8750"]
    assert ids(choose_slices(slices(3), 5, "spread")) == ["0", "1", "2"]


def test_slices_by_chance_are_the_same_for_a_seed():
    first, again = (choose_slices(slices(100), 5, "random", seed=3) for _ in range(2))
    assert ids(first) == ids(again) == sorted(ids(first), key=int)
    assert ids(first) != ids(choose_slices(slices(100), 5, "random", seed=4))


@pytest.mark.parametrize(
    ("pick", "expected"), [("worst", ["1", "4"]), ("median", ["2", "4"]), ("best", ["2", "3"])]
)
def test_slices_by_score(pick, expected):
    # Slice 0 was not scored, and is none of them.
    scores = {"1": 0.1, "2": 0.6, "3": 0.9, "4": 0.3}
    assert ids(choose_slices(slices(5), 2, pick, scores)) == expected


def test_no_scores_choose_nothing():
    with pytest.raises(UsageError, match="no slice has a score, so none is the worst one"):
        choose_slices(slices(5), 2, "worst", {"other": 0.3})


def test_slices_by_name_keep_their_order():
    assert ids(named_slices(slices(5), ["3", "1", "3"])) == ["3", "1"]
    with pytest.raises(DatasetError, match=r"no slice '7'; expected a name as 0, 1, 2 \(5 slices"):
        named_slices(slices(5), ["7"])


def test_colours_are_the_first_three_components():
    random = np.random.default_rng(0)
    plane = random.normal(size=(2, 40, 3)) * [30, 10, 3]
    grids = [np.concatenate([part, np.zeros((40, 5))], 1).reshape(5, 8, 8) for part in plane]
    joint = np.concatenate([c.reshape(-1, 3) for c in pca_colours(grids)]).astype(float)
    values = plane.reshape(-1, 3)
    for channel in range(3):
        rank = np.corrcoef(joint[:, channel], values[:, channel])[0, 1]
        assert abs(rank) > 0.95, channel
    assert joint.min() == 0
    assert joint.max() == 255
    np.testing.assert_array_equal(pca_colours(grids)[0], pca_colours(grids)[0])


def test_colours_of_tokens_that_are_all_alike():
    (colours,) = pca_colours([np.ones((2, 3, 8), np.float32)])
    assert colours.shape == (2, 3, 3)


def test_every_pixel_of_a_mistake_is_counted_and_painted():
    random = np.random.default_rng(1)
    true = random.choice([0, 1, 255], (20, 30)).astype(np.uint8)
    predicted = random.choice([0, 1], (20, 30)).astype(np.uint8)
    black = np.zeros((20, 30), np.uint8)
    drawn = mistakes(black, true, predicted)
    counts = Counts.of(torch.from_numpy(predicted), torch.from_numpy(true))
    expected = {"right": counts.tp, "false positive": counts.fp, "false negative": counts.fn}
    for name, colour in MISTAKES.items():
        shade = np.rint(0.6 * np.array(colour)).astype(np.uint8)
        assert (drawn == shade).all(axis=-1).sum() == expected[name], name
    assert (drawn == 0).all(axis=-1).sum() == true.size - sum(expected.values())
    assert (filled(black, true, (100, 0, 0)).any(axis=-1) == (true == 1)).all()
