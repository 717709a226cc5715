"""Scores beyond the pixel counts: boundaries of masks, and objects of slices or of a stack.

Objects are connected components, 8-connected in a slice and 26-connected in a stack. A score that
a slice has no object for is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import sparse
from scipy.ndimage import binary_erosion, generate_binary_structure, label
from scipy.spatial import KDTree
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.morphology import remove_small_objects

THRESHOLDS = (0.5, 0.75)
"""Intersection over union that two objects need to be a match."""


@dataclass(frozen=True, slots=True)
class BoundaryScores:
    """How well the outlines of two masks agree."""

    boundary_f: float | None
    """Harmonic mean of the shares of the predicted boundary's pixels within the tolerance of the
    true one, and of the true one's of the predicted (Csurka et al. 2013; DAVIS)."""
    hausdorff_95: float | None
    """Pixels: the larger of the two 95th percentiles of the distance from each boundary pixel of
    one mask to the nearest of the other, as MONAI's."""


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """How well the objects of two masks agree."""

    n_true: int
    n_predicted: int
    matched_50: int
    """Pairs of a true and a predicted object with an IoU above 0.5; each object has one at most."""
    iou_sum_50: float
    """Sum of their IoU, for the panoptic quality (Kirillov et al. 2019)."""
    matched_75: int
    """The same above 0.75."""
    iou_sum_75: float
    adapted_rand_error: float | None
    """As SNEMI3D has it (Arganda-Carreras et al. 2015), over the pixels of true objects."""
    voi_split: float | None
    """Bits: entropy of the predicted objects within a true one; high where objects are split."""
    voi_merge: float | None
    """Bits: entropy of the true objects within a predicted one; high where objects are merged."""


def dice(true: Bool[np.ndarray, "*size"], predicted: Bool[np.ndarray, "*size"]) -> float | None:
    """Twice the shared pixels through those of both; None where there is no true foreground."""
    if not true.any():
        return None
    return float(2 * (true & predicted).sum() / (true.sum() + predicted.sum()))


def boundary_scores(
    true: Bool[np.ndarray, "row col"], predicted: Bool[np.ndarray, "row col"], tolerance: float
) -> BoundaryScores:
    """Compare the outlines of two masks of one size.

    The boundary of a mask are its pixels beside a pixel that is not of the mask, above, below or
    aside; the border of the slice counts as such.

    Args:
        true: The mask.
        predicted: What was predicted of it.
        tolerance: In pixels.

    Returns:
        Without true foreground both are None. Where nothing was predicted, the boundary F-score is
        0 and the distance is None, since there is none.
    """
    if not true.any():
        return BoundaryScores(None, None)
    if not predicted.any():
        return BoundaryScores(0.0, None)
    edges = [_boundary(mask) for mask in (true, predicted)]
    to_true, to_predicted = _distances(edges[1], edges[0]), _distances(edges[0], edges[1])
    precision, recall = (to_true <= tolerance).mean(), (to_predicted <= tolerance).mean()
    both = precision + recall
    farthest = max(np.percentile(to_true, 95), np.percentile(to_predicted, 95))
    return BoundaryScores(float(2 * precision * recall / both) if both else 0.0, float(farthest))


def object_scores(
    true: Bool[np.ndarray, "*size"], predicted: Bool[np.ndarray, "*size"], smallest: int = 1
) -> ObjectScores:
    """Compare the objects of two masks of one size.

    Args:
        true: The mask, of a slice or of a stack.
        predicted: What was predicted of it.
        smallest: Pixels of the smallest object that counts, in both.
    """
    (true_labels, n_true), (labels, n_predicted) = (
        _objects(mask, smallest) for mask in (true, predicted)
    )
    table = _shared_pixels(true_labels, labels, (n_true + 1, n_predicted + 1))
    pairs = table[1:, 1:].tocoo()
    sizes = np.bincount(true_labels.ravel())[1:], np.bincount(labels.ravel())[1:]
    overlaps = pairs.data / (sizes[0][pairs.row] + sizes[1][pairs.col] - pairs.data)
    # An IoU above one half makes a match that no other object can have.
    matches = [overlaps[overlaps > threshold] for threshold in THRESHOLDS]
    error = split = merge = None
    if n_true:
        # Pixels that no true object has are left out of both.
        of_true = table[1:]
        error = float(adapted_rand_error(table=of_true)[0])  # type: ignore[no-untyped-call]
        # It asks for images of one shape, and reads the table alone.
        given = np.zeros(1, np.int64)
        entropies = variation_of_information(  # type: ignore[no-untyped-call]
            given, given, table=of_true / of_true.sum()
        )
        split, merge = map(float, entropies)
    return ObjectScores(
        n_true,
        n_predicted,
        len(matches[0]),
        float(matches[0].sum()),
        len(matches[1]),
        float(matches[1].sum()),
        error,
        split,
        merge,
    )


def _boundary(mask: Bool[np.ndarray, "row col"]) -> Integer[np.ndarray, "pixel 2"]:
    return np.argwhere(mask & ~binary_erosion(mask))


def _distances(
    given: Integer[np.ndarray, "pixel 2"], to: Integer[np.ndarray, "other 2"]
) -> Float[np.ndarray, " pixel"]:
    """From each given pixel to the nearest of the others."""
    distances: Float[np.ndarray, " pixel"] = KDTree(to).query(given)[0]
    return distances


def _shared_pixels(
    true: Integer[np.ndarray, "*size"],
    predicted: Integer[np.ndarray, "*size"],
    shape: tuple[int, int],
) -> sparse.csr_array:
    """How many pixels each pair of labels shares, but for those that both call background."""
    seen = (true > 0) | (predicted > 0)
    pairs, counts = np.unique(
        true[seen].astype(np.int64) * shape[1] + predicted[seen], return_counts=True
    )
    return sparse.csr_array((counts.astype(np.float64), np.divmod(pairs, shape[1])), shape=shape)


def _objects(
    mask: Bool[np.ndarray, "*size"], smallest: int
) -> tuple[Integer[np.ndarray, "*size"], int]:
    whole = generate_binary_structure(mask.ndim, mask.ndim)
    if smallest > 1:
        mask = remove_small_objects(mask, max_size=smallest - 1, connectivity=mask.ndim)
    labels, count = label(mask, whole)
    return labels, int(count)
