"""Boundary and object scores against implementations that share no code with them."""

from collections import Counter
from itertools import combinations, product
from math import log2

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from emcache.evaluation.shapes import boundary_scores, dice, object_scores


def masks(seed: int, size: tuple[int, ...] = (22, 27)) -> tuple[np.ndarray, np.ndarray]:
    """A mask with several objects, and one that resembles it."""
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.random(size), 1.6)
    other = field + 0.4 * gaussian_filter(random.random(size), 1.2)
    return field > np.quantile(field, 0.7), other > np.quantile(other, 0.7)


def components(mask: np.ndarray) -> dict[tuple[int, ...], int]:
    """The number of its object for every pixel of a mask, by flooding."""
    left = {tuple(place) for place in np.argwhere(mask).tolist()}
    steps = [step for step in product((-1, 0, 1), repeat=mask.ndim) if any(step)]
    found: dict[tuple[int, ...], int] = {}
    count = 0
    while left:
        count += 1
        waiting = [min(left)]
        left.discard(waiting[0])
        while waiting:
            place = waiting.pop()
            found[place] = count
            for step in steps:
                beside = tuple(a + b for a, b in zip(place, step, strict=True))
                if beside in left:
                    left.discard(beside)
                    waiting.append(beside)
    return found


def boundary(mask: np.ndarray) -> list[tuple[int, int]]:
    """Pixels of a mask that have a neighbour, above, below or aside, that is not of it."""
    inside = {tuple(place) for place in np.argwhere(mask).tolist()}
    return [
        (row, col)
        for row, col in sorted(inside)
        if not {(row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)} <= inside
    ]


def distances(given: list, to: list) -> list[float]:
    return sorted(min(((a - c) ** 2 + (b - d) ** 2) ** 0.5 for c, d in to) for a, b in given)


def percentile(values: list[float], share: float) -> float:
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


@pytest.mark.parametrize("seed", range(6))
def test_boundaries(seed: int) -> None:
    true, predicted = masks(seed)
    for tolerance in (0.0, 1.0, 2.5):
        found = boundary_scores(true, predicted, tolerance)
        edges = boundary(true), boundary(predicted)
        to_true, to_predicted = distances(edges[1], edges[0]), distances(*edges)
        precision = sum(d <= tolerance for d in to_true) / len(to_true)
        recall = sum(d <= tolerance for d in to_predicted) / len(to_predicted)
        expected = 2 * precision * recall / (precision + recall)
        assert found.boundary_f == pytest.approx(expected, abs=1e-9)
        farthest = max(percentile(to_true, 0.95), percentile(to_predicted, 0.95))
        assert found.hausdorff_95 == pytest.approx(farthest, abs=1e-9)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, true)]
    # MONAI computes in float32.
    theirs = compute_hausdorff_distance(*pair, include_background=True, percentile=95)
    assert float(theirs) == pytest.approx(found.hausdorff_95, rel=1e-6)
    assert dice(true, predicted) == pytest.approx(
        2 * sum((true & predicted).flat) / (sum(true.flat) + sum(predicted.flat)), abs=1e-9
    )


@pytest.mark.parametrize(
    ("seed", "size"), [(0, (22, 27)), (1, (22, 27)), (2, (30, 12)), (3, (6, 9, 11))]
)
def test_objects(seed: int, size: tuple[int, ...]) -> None:
    true, predicted = masks(seed, size)
    found = object_scores(true, predicted)
    ours, theirs = components(true), components(predicted)
    assert (found.n_true, found.n_predicted) == (max(ours.values()), max(theirs.values()))
    overlaps = []
    for a, b in product(set(ours.values()), set(theirs.values())):
        of_a = {place for place, number in ours.items() if number == a}
        of_b = {place for place, number in theirs.items() if number == b}
        overlaps.append(len(of_a & of_b) / len(of_a | of_b))
    for threshold, count, total in (
        (0.5, found.matched_50, found.iou_sum_50),
        (0.75, found.matched_75, found.iou_sum_75),
    ):
        above = [overlap for overlap in overlaps if overlap > threshold]
        assert count == len(above)
        assert total == pytest.approx(sum(above), abs=1e-9)
    assert found.matched_50 > 0
    pixels = [(number, theirs.get(place, 0)) for place, number in ours.items()]
    same_true = same_predicted = same_both = 0
    for (a, b), (c, d) in combinations(pixels, 2):
        same_true += a == c
        same_predicted += b == d
        same_both += a == c and b == d
    precision, recall = same_both / same_predicted, same_both / same_true
    error = 1 - 2 * precision * recall / (precision + recall)
    assert found.adapted_rand_error == pytest.approx(error, abs=1e-9)
    of_true, of_predicted, of_pairs = (
        entropy(values) for values in ([a for a, _ in pixels], [b for _, b in pixels], pixels)
    )
    assert found.voi_split == pytest.approx(of_pairs - of_true, abs=1e-9)
    assert found.voi_merge == pytest.approx(of_pairs - of_predicted, abs=1e-9)


def entropy(values: list) -> float:
    shares = [count / len(values) for count in Counter(values).values()]
    return -sum(share * log2(share) for share in shares)


def test_split_and_merged_objects_have_names() -> None:
    whole = np.zeros((9, 20), bool)
    whole[2:7, 2:18] = True
    halves = whole.copy()
    halves[:, 9:11] = False
    split, merged = object_scores(whole, halves), object_scores(halves, whole)
    assert split.voi_split > split.voi_merge == pytest.approx(0, abs=1e-12)
    assert merged.voi_merge == pytest.approx(1)
    assert merged.voi_split == pytest.approx(0, abs=1e-12)


def test_touching_corners_are_one_object_and_specks_can_be_left_out() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0:3, 0:3] = mask[3:6, 3:6] = True
    mask[7, 0] = True
    assert object_scores(mask, mask).n_true == 2
    assert object_scores(mask, mask, smallest=2).n_true == 1
    assert object_scores(mask, mask, smallest=18).n_true == 1
    assert object_scores(mask, mask, smallest=19).n_true == 0


def test_what_is_not_there_has_no_score() -> None:
    nothing, mask = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    mask[3:8, 3:8] = True
    empty = boundary_scores(nothing, mask, 2.0)
    assert (dice(nothing, mask), empty.boundary_f, empty.hausdorff_95) == (None, None, None)
    objects = object_scores(nothing, mask)
    assert (objects.n_true, objects.n_predicted, objects.matched_50) == (0, 1, 0)
    assert (objects.adapted_rand_error, objects.voi_split, objects.voi_merge) == (None, None, None)
    missed = boundary_scores(mask, nothing, 2.0)
    assert (dice(mask, nothing), missed.boundary_f, missed.hausdorff_95) == (0.0, 0.0, None)
    perfect = boundary_scores(mask, mask, 0.0)
    assert (dice(mask, mask), perfect.boundary_f, perfect.hausdorff_95) == (1.0, 1.0, 0.0)
    assert object_scores(mask, mask).adapted_rand_error == 0
    assert object_scores(nothing, nothing).n_predicted == 0
