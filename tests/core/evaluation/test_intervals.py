"""Intervals over seeds and over blocks of neighbouring slices."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import ttest_1samp, ttest_rel

from emcache.evaluation.intervals import holm, iou, over_seeds, over_seeds_and_blocks


def made_up(
    random: np.random.Generator, seeds: int, slices: int, alike: float, spread: float = 0.1
) -> np.ndarray:
    """Counts of runs on slices of which neighbours are alike."""
    shocks = random.normal(size=slices) * np.sqrt(1 - alike**2)
    shocks[0] = random.normal()
    hardness = lfilter([1], [1, -alike], shocks)
    quality = 0.5 * hardness + spread * random.normal(size=(seeds, 1))
    area = np.rint(10_000 * np.exp(0.3 * hardness)).astype(np.int64)
    hits = np.rint(area / (1 + np.exp(-quality))).astype(np.int64)
    missed = (area - hits) // 2
    return np.stack([hits, area - hits - missed, missed], axis=-1)


def test_over_seeds_it_is_students_interval() -> None:
    random = np.random.default_rng(0)
    ours, theirs = made_up(random, 5, 12, 0.5), made_up(random, 5, 12, 0.5)
    test = ttest_1samp(iou(ours), 0)
    known = test.confidence_interval(0.95)
    found = over_seeds(ours)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert found.p_value == pytest.approx(test.pvalue)
    paired = ttest_rel(iou(ours), iou(theirs)).confidence_interval(0.95)
    found = over_seeds(ours, theirs)
    assert (found.low, found.high) == pytest.approx((paired.low, paired.high), abs=1e-12)
    assert found.value == pytest.approx(np.mean(iou(ours) - iou(theirs)))


@pytest.mark.parametrize(("slices", "alike"), [(42, 0.0), (165, 0.5)])
def test_it_holds_the_truth_as_often_as_it_says(slices: int, alike: float) -> None:
    random = np.random.default_rng(1)
    truth = float(iou(made_up(random, 400, 50_000, alike)).mean())
    found = [over_seeds_and_blocks(made_up(random, 5, slices, alike)) for _ in range(800)]
    held = np.mean([interval.low <= truth <= interval.high for interval in found])
    assert 0.93 <= held <= 0.97
    # Over seeds alone it knows nothing of other slices.
    narrow = [over_seeds(made_up(random, 5, slices, alike)) for _ in range(200)]
    assert np.mean([interval.low <= truth <= interval.high for interval in narrow]) < 0.9


def test_other_slices_never_make_it_narrower() -> None:
    random = np.random.default_rng(4)
    for _ in range(50):
        counts = made_up(random, 3, 42, 0.5, spread=1.0)
        alone, whole = over_seeds(counts), over_seeds_and_blocks(counts)
        assert whole.low <= alone.low
        assert whole.high >= alone.high


def test_what_two_runs_have_in_common_drops_out_of_their_difference() -> None:
    counts = made_up(np.random.default_rng(2), 5, 42, 0.5)
    difference = over_seeds_and_blocks(counts, counts)
    assert difference == (0, 0, 0, 1)
    own = over_seeds_and_blocks(counts)
    assert own.high - own.low > 0.05


def test_where_there_is_no_interval() -> None:
    counts = made_up(np.random.default_rng(3), 5, 42, 0.5)
    assert over_seeds(counts[:1]) is None
    assert over_seeds_and_blocks(counts[:1]) is None
    assert over_seeds_and_blocks(counts[:, :9]) is None
    assert over_seeds(counts[:, :3]) is not None


def test_holm_multiplies_step_by_step() -> None:
    # The example of R's p.adjust: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
