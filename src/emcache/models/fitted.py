"""Heads that are fitted to a few labelled tokens in one go, and not trained.

``prototype`` and ``knn`` follow DINOSim (González-Marfil et al., 2025): the distance of each token
to the mean of the clicked ones is smoothed, cut at its 1 % and 99 % quantiles and brought to 0 to
1; ``knn`` takes it of the annotated slices as a pseudo-label, and gives each token the mean over
its five nearest ones there. ``forest`` follows ConvPaint (Hinderling et al., 2024): a random forest
on the tokens under labelled pixels, with image filters beside them or alone. ``logistic`` is a
logistic regression on the same tokens.

The first two need foreground alone. Scores are resized bilinearly and then compared with a
threshold, as in these methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from emcache.errors import UsageError
from emcache.models.heads import Head

_QUANTILES = (0.01, 0.99)
_CHUNK = 1024
_PIXELS_AT_ONCE = 1 << 16
_TINY = 1e-6
_SIDE = 64


class Annotated(NamedTuple):
    """Labelled points of one slice, with what a method reads there."""

    tokens: Float32[np.ndarray, "row col channel"]
    points: Float[np.ndarray, "point 2"]
    """Row and column of each point, as shares of height and width from 0 to 1."""
    foreground: UInt8[np.ndarray, " point"]
    """1 for foreground, 0 for background."""
    image: Float32[np.ndarray, "3 image_row image_col"] | None = None
    """The normalised slice at its training size, for methods that read it."""

    def at_points(self) -> Float32[np.ndarray, "point channel"]:
        """The tokens that the points lie in."""
        rows, columns = _cells(self.points, self.tokens.shape[:2])
        found: Float32[np.ndarray, "point channel"] = self.tokens[rows, columns]
        return found


class FittedHead(Head, ABC):
    """A head without weights to train: labelled tokens in, then as any head.

    Args:
        dim: Channels of a token.
        seed: Of what is random in a method.
        threshold: Foreground is where the score is above it.
        neighbours: Of ``knn``.
        trees: Of ``forest``.
    """

    parts: Sequence[str] = ()
    """Names of the buffers that fitting fills."""

    def __init__(
        self, dim: int, seed: int, threshold: float = 0.5, neighbours: int = 5, trees: int = 100
    ) -> None:
        super().__init__()
        # A parameter, so that the head has a device, and an optimizer something to hold.
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self._dim, self._seed, self._neighbours, self._trees = dim, seed, neighbours, trees
        for name in self.parts:
            self.register_buffer(name, torch.empty(0))

    @abstractmethod
    def fit(self, slices: Sequence[Annotated]) -> None:
        """Take in labelled points.

        Raises:
            UsageError: A class that the method needs has none.
        """

    @abstractmethod
    def scores(
        self,
        tokens: Float[Tensor, "batch channel row col"],
        images: Float[Tensor, "batch 3 image_row image_col"] | None,
    ) -> Float[Tensor, "batch 1 r c"]:
        """How much each place is like foreground, from 0 to 1."""

    @override
    def logits(
        self, tokens: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch classes r c"]:
        score = self.scores(tokens, None)
        return torch.cat([1 - score, score], dim=1)

    @override
    def forward(
        self,
        tokens: Float[Tensor, "batch channel row col"],
        size: tuple[int, int],
        images: Float[Tensor, "batch 3 image_row image_col"] | None = None,
    ) -> Float[Tensor, "batch classes height width"]:
        with torch.autocast(tokens.device.type, enabled=False):
            score = self.scores(tokens.float(), images)
            score = functional.interpolate(
                score.float(), size=size, mode="bilinear", align_corners=False
            )
            # Logits whose softmax is the score where the threshold is one half.
            odds = torch.logit(score, _TINY) - torch.logit(self.threshold.detach(), _TINY)
            return torch.cat([torch.zeros_like(odds), odds], dim=1)

    @property
    def width(self) -> int:
        """Channels of what fitting keeps of each token, or more where it keeps filters too."""
        return self._dim

    @override
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take in what fitting filled, whatever its size.

        Raises:
            RuntimeError: A part is missing, or of other tokens.
        """
        missing = [name for name in self.parts if name not in state_dict]
        if missing:
            raise RuntimeError(f"missing: {', '.join(missing)}")
        first, *others = (state_dict[name] for name in self.parts)
        fits = first.ndim > 0 and first.shape[-1] == self.width and first.isfinite().all()
        if not fits or any(part.shape != first.shape[:1] for part in others):
            raise RuntimeError(f"parts of {[tuple(state_dict[n].shape) for n in self.parts]}")
        for name in self.parts:
            setattr(self, name, state_dict[name].to(self.threshold.device))
        return super().load_state_dict(state_dict, strict, assign)


class PrototypeHead(FittedHead):
    """Distance to the mean of the foreground's tokens."""

    parts = ("prototype",)
    prototype: Tensor

    @override
    def fit(self, slices: Sequence[Annotated]) -> None:
        self.prototype = _mean_of_foreground(slices).to(self.threshold.device)

    @override
    def scores(
        self,
        tokens: Float[Tensor, "batch channel row col"],
        images: Float[Tensor, "batch 3 image_row image_col"] | None,
    ) -> Float[Tensor, "batch 1 r c"]:
        del images
        distances = (tokens - self.prototype[:, None, None]).norm(dim=1, keepdim=True)
        return 1 - between_quantiles(smooth(distances))


class KnnHead(FittedHead):
    """Mean pseudo-label of the nearest tokens of the annotated slices."""

    parts = ("references", "labels")
    references: Tensor
    labels: Tensor

    @override
    def fit(self, slices: Sequence[Annotated]) -> None:
        prototype = _mean_of_foreground(slices)
        references, labels = [], []
        for item in slices:
            tokens = torch.from_numpy(item.tokens).permute(2, 0, 1)
            distances = (tokens - prototype[:, None, None]).norm(dim=0)[None, None]
            labels.append(between_quantiles(smooth(distances)).flatten())
            references.append(tokens.flatten(1).T)
        device = self.threshold.device
        self.references = torch.cat(references).contiguous().to(device)
        self.labels = torch.cat(labels).to(device)

    @override
    def scores(
        self,
        tokens: Float[Tensor, "batch channel row col"],
        images: Float[Tensor, "batch 3 image_row image_col"] | None,
    ) -> Float[Tensor, "batch 1 r c"]:
        del images
        batch, _, rows, columns = tokens.shape
        flat = tokens.permute(0, 2, 3, 1).reshape(-1, tokens.shape[1])
        nearest = min(self._neighbours, len(self.references))
        # Float64 where there is it: neighbours at nearly one distance would change places.
        kind = torch.float32 if tokens.device.type == "mps" else torch.float64
        references = self.references.to(kind)
        means = []
        for start in range(0, len(flat), _CHUNK):
            part = flat[start : start + _CHUNK]
            near = torch.cdist(part.to(kind), references).topk(nearest, dim=1, largest=False)
            means.append(self.labels[near.indices].mean(dim=1))
        distances = torch.cat(means).reshape(batch, 1, rows, columns)
        return 1 - smooth(distances)


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
        labels = np.concatenate([item.foreground for item in slices])
        for value, name in enumerate(("background", "foreground")):
            if not (labels == value).any():
                raise UsageError(
                    f"no annotated point is {name}; expected some of both classes: annotate "
                    f"{name} too, or use prototype or knn, which need foreground alone.",
                    subject=name,
                )
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
        rows, columns = _cells(item.points, item.image.shape[1:])
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
        super().fit(slices)
        rows, shares = [], []
        for item in slices:
            width = item.tokens.shape[1]
            at = _cells(item.points, item.tokens.shape[:2])
            cells, place = np.unique(at[0] * width + at[1], return_inverse=True)
            rows.append(item.tokens[cells // width, cells % width])
            shares.append(np.bincount(place, item.foreground) / np.bincount(place))
        share = np.concatenate(shares)
        whole = np.concatenate(rows)
        self.rows = torch.from_numpy(np.concatenate([whole, whole]))
        self.labels = torch.from_numpy(np.repeat(np.array([1, 0], np.uint8), len(whole)))
        self.weights = torch.from_numpy(np.concatenate([share, 1 - share]))

    @override
    def classifier(self) -> Pipeline:
        regression = LogisticRegression(C=self._PENALTY, max_iter=1000)
        return make_pipeline(StandardScaler(), regression)

    @override
    def fitted(self) -> Pipeline:
        weights = self.weights.cpu().numpy()
        rows, labels = self.rows.cpu().numpy(), self.labels.cpu().numpy()
        return self.classifier().fit(rows, labels, logisticregression__sample_weight=weights)


FITTED_HEADS: Mapping[str, type[FittedHead]] = {
    "prototype": PrototypeHead,
    "knn": KnnHead,
    "forest": ForestHead,
    "forest-filters": TokenFilterForestHead,
    "filters": FilterForestHead,
    "boosting": BoostingHead,
    "logistic": LogisticHead,
}
"""Every head that is fitted, by its kind."""


def build_fitted(
    kind: str, dim: int, seed: int, threshold: float, neighbours: int, trees: int
) -> FittedHead:
    """A head that is not fitted yet.

    Args:
        kind: Of :data:`FITTED_HEADS`.
        dim: Channels of a token.
        seed: Of what is random.
        threshold: Of the score.
        neighbours: Of ``knn``.
        trees: Of ``forest`` and ``boosting``.
    """
    return FITTED_HEADS[kind](dim, seed, threshold, neighbours, trees)


def smooth(maps: Float[Tensor, "batch 1 row col"]) -> Float[Tensor, "batch 1 row col"]:
    """A Gaussian of 3 x 3 tokens and standard deviation 1, mirrored at the edges."""
    places = torch.arange(-1, 2, dtype=maps.dtype, device=maps.device)
    bell = torch.exp(-(places**2) / 2)
    kernel = torch.outer(bell, bell)
    height, width = maps.shape[-2:]
    # A grid of one row or column has nothing to mirror.
    mode = "reflect" if min(height, width) > 1 else "replicate"
    padded = functional.pad(maps, (1, 1, 1, 1), mode=mode)
    return functional.conv2d(padded, (kernel / kernel.sum())[None, None])


def between_quantiles(maps: Float[Tensor, "batch 1 row col"]) -> Float[Tensor, "batch 1 row col"]:
    """Each map cut at its 1 % and 99 % quantiles and brought to 0 to 1."""
    flat = maps.flatten(1)
    points = torch.tensor(_QUANTILES, dtype=flat.dtype, device=flat.device)
    low, high = torch.quantile(flat, points, dim=1)[..., None, None, None]
    scaled: Tensor = (maps.clamp(low, high) - low) / (high - low + 1e-8)
    return scaled


def _mean_of_foreground(slices: Sequence[Annotated]) -> Float32[Tensor, " channel"]:
    clicked = [item.at_points()[item.foreground == 1] for item in slices]
    tokens = np.concatenate(clicked)
    if not len(tokens):
        raise UsageError(
            "no annotated point is foreground; expected at least one click on what is to be found."
        )
    return torch.from_numpy(tokens.mean(axis=0, dtype=np.float64).astype(np.float32))


def _cells(
    points: Float[np.ndarray, "point 2"], shape: tuple[int, ...]
) -> tuple[Int64[np.ndarray, " point"], Int64[np.ndarray, " point"]]:
    """The cell of a grid that each point lies in."""
    cells = (points * np.array(shape)).astype(np.int64)
    cells = np.minimum(cells, np.array(shape) - 1)
    return cells[:, 0], cells[:, 1]


def _filters(
    image: Float32[np.ndarray, "3 image_row image_col"],
) -> Float32[np.ndarray, "image_row image_col filter"]:
    """Intensity, edges and texture at scales of 1 to 16 pixels, as scikit-image computes them."""
    found = multiscale_basic_features(image[0], sigma_min=1, sigma_max=16)  # type: ignore[no-untyped-call]
    filters: Float32[np.ndarray, "image_row image_col filter"] = found.astype(np.float32)
    return filters
