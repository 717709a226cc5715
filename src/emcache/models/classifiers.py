"""Heads that are classifiers of scikit-learn, on tokens and on image filters (ConvPaint)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from typing_extensions import override

from emcache.errors import UsageError
from emcache.models.fitting import Annotated, FittedHead, cells_of

_PIXELS_AT_ONCE = 1 << 16
_SIDE = 64


class _Classifier(FittedHead):
    """A classifier of scikit-learn on the tokens, and on image filters, of labelled points.

    What is kept are the labelled rows: the classifier is fitted to them again when the head is
    loaded, which takes the same time and needs no format for it.
    """

    parts: Sequence[str] = ("rows", "labels")
    rows: Tensor
    labels: Tensor
    reads_tokens = True
    reads_filters = False
    _fitted: Any = None

    @abstractmethod
    def classifier(self) -> Any:
        """The classifier of scikit-learn, not fitted."""

    def fitted(self) -> Any:
        """The classifier, fitted to what is kept."""
        return self.classifier().fit(self.rows.cpu().numpy(), self.labels.cpu().numpy())

    @override
    def fit(self, slices: Sequence[Annotated]) -> None:
        labels = _labels_of_both(slices)
        rows = np.concatenate([self._rows(item) for item in slices])
        self.rows, self.labels = torch.from_numpy(rows), torch.from_numpy(labels)
        self._fitted = None

    @override
    def scores(
        self,
        tokens: Float[Tensor, "batch channel row col"],
        images: Float[Tensor, "batch 3 image_row image_col"] | None,
    ) -> Float[Tensor, "batch 1 r c"]:
        if self._fitted is None:
            self._fitted = self.fitted()
        grids = tokens.permute(0, 2, 3, 1).cpu().numpy()
        pixels = [None] * len(grids) if images is None else list(images.cpu().numpy())
        found = [self._score(grid, image) for grid, image in zip(grids, pixels, strict=True)]
        return torch.from_numpy(np.stack(found)[:, None]).to(tokens.device)

    def _score(
        self,
        grid: Float32[np.ndarray, "row col channel"],
        image: Float32[np.ndarray, "3 image_row image_col"] | None,
    ) -> Float32[np.ndarray, "r c"]:
        if not self.reads_filters:
            flat = grid.reshape(-1, grid.shape[-1])
            return self._probability(flat).reshape(grid.shape[:2])
        assert image is not None  # noqa: S101 - it says that it takes images
        size = image.shape[1:]
        filters = _filters(image)
        rows, columns = np.divmod(np.arange(size[0] * size[1]), size[1])
        parts = []
        for start in range(0, len(rows), _PIXELS_AT_ONCE):
            own = slice(start, start + _PIXELS_AT_ONCE)
            parts.append(self._probability(self._pixels(grid, filters, rows[own], columns[own])))
        return np.concatenate(parts).reshape(size)

    def _probability(
        self, rows: Float32[np.ndarray, "sample feature"]
    ) -> Float32[np.ndarray, " sample"]:
        probability: Float32[np.ndarray, " sample"] = self._fitted.predict_proba(rows)[:, 1]
        return probability.astype(np.float32)

    def _rows(self, item: Annotated) -> Float32[np.ndarray, "point feature"]:
        if not self.reads_filters:
            return item.at_points()
        assert item.image is not None  # noqa: S101 - it says that it takes images
        rows, columns = cells_of(item.points, item.image.shape[1:])
        return self._pixels(item.tokens, _filters(item.image), rows, columns)

    def _pixels(
        self,
        grid: Float32[np.ndarray, "row col channel"],
        filters: Float32[np.ndarray, "image_row image_col filter"],
        rows: Int64[np.ndarray, " pixel"],
        columns: Int64[np.ndarray, " pixel"],
    ) -> Float32[np.ndarray, "pixel feature"]:
        """Filters at some pixels, and the tokens that these lie in."""
        own: Float32[np.ndarray, "pixel filter"] = filters[rows, columns]
        if not self.reads_tokens:
            return own
        height, width = filters.shape[:2]
        tokens = grid[rows * grid.shape[0] // height, columns * grid.shape[1] // width]
        return np.concatenate([tokens, own], axis=1)


class ForestHead(_Classifier):
    """A random forest on tokens."""

    @override
    def classifier(self) -> RandomForestClassifier:
        # Threads do not change a forest.
        threads = torch.get_num_threads()
        return RandomForestClassifier(self._trees, random_state=self._seed, n_jobs=threads)


class FilterForestHead(ForestHead):
    """A random forest on image filters alone: the control of the others."""

    takes_images = True
    reads_tokens = False
    reads_filters = True

    @property
    @override
    def width(self) -> int:
        filters = int(_filters(np.zeros((3, _SIDE, _SIDE), np.float32)).shape[-1])
        return filters + (self._dim if self.reads_tokens else 0)


class TokenFilterForestHead(FilterForestHead):
    """A random forest on tokens with image filters beside them."""

    reads_tokens = True


class BoostingHead(_Classifier):
    """Gradient boosting on tokens."""

    @override
    def classifier(self) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(max_iter=self._trees, random_state=self._seed)


class LogisticHead(_Classifier):
    """A logistic regression on standardised tokens.

    A token counts once, whatever the number of pixels that were labelled in it, and for each class
    by its share of these: a scribble puts hundreds of pixels into one token, and a regression that
    takes all of them for observations is sure of what it saw once. The penalty (C = 0.01) was
    chosen on VNC.
    """

    parts = ("rows", "labels", "weights")
    weights: Tensor
    _PENALTY = 0.01

    @override
    def fit(self, slices: Sequence[Annotated]) -> None:
        _labels_of_both(slices)
        rows, shares = [], []
        for item in slices:
            width = item.tokens.shape[1]
            at = cells_of(item.points, item.tokens.shape[:2])
            cells, place = np.unique(at[0] * width + at[1], return_inverse=True)
            rows.append(item.tokens[cells // width, cells % width])
            shares.append(np.bincount(place, item.foreground) / np.bincount(place))
        share = np.concatenate(shares)
        whole = np.concatenate(rows)
        self.rows = torch.from_numpy(np.concatenate([whole, whole]))
        self.labels = torch.from_numpy(np.repeat(np.array([1, 0], np.uint8), len(whole)))
        self.weights = torch.from_numpy(np.concatenate([share, 1 - share]))
        self._fitted = None

    @override
    def classifier(self) -> Pipeline:
        regression = LogisticRegression(C=self._PENALTY, max_iter=1000)
        return make_pipeline(StandardScaler(), regression)

    @override
    def fitted(self) -> Pipeline:
        weights = self.weights.cpu().numpy()
        rows, labels = self.rows.cpu().numpy(), self.labels.cpu().numpy()
        return self.classifier().fit(rows, labels, logisticregression__sample_weight=weights)


def _labels_of_both(slices: Sequence[Annotated]) -> UInt8[np.ndarray, " point"]:
    labels: UInt8[np.ndarray, " point"] = np.concatenate([item.foreground for item in slices])
    for value, name in enumerate(("background", "foreground")):
        if not (labels == value).any():
            raise UsageError(
                f"no annotated point is {name}; expected some of both classes: annotate {name} "
                f"too, or use prototype or knn, which need foreground alone.",
                subject=name,
            )
    return labels


def _filters(
    image: Float32[np.ndarray, "3 image_row image_col"],
) -> Float32[np.ndarray, "image_row image_col filter"]:
    """Intensity, edges and texture at scales of 1 to 16 pixels, as scikit-image computes them."""
    found = multiscale_basic_features(image[0], sigma_min=1, sigma_max=16)  # type: ignore[no-untyped-call]
    filters: Float32[np.ndarray, "image_row image_col filter"] = found.astype(np.float32)
    return filters
