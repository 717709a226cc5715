"""Vectors of a selection of slices, whichever feature sets hold them, and their projection."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from sklearn.decomposition import PCA

from emcache.cache.alignment import Transform
from emcache.cache.find import Donors
from emcache.cache.inputs import training_mask
from emcache.cache.moments import Moments, ensure_moments
from emcache.cache.plan import Job
from emcache.data.resize import occupancy
from emcache.data.sections import read_reduced_image
from emcache.errors import DatasetError, StoreError
from emcache.gap.frechet import Sample

LEVELS = ("slice", "cls", "token")
"""Mean of the patch tokens, class token, single patch tokens."""
CLASSES = ("foreground", "background")
"""Classes of tokens; a token of neither is left out."""
FULL = 0.9
"""A token is foreground where at least this share of its patch is."""
EMPTY = 0.1
"""A token is background where at most this share of its patch is foreground."""

_MOST_TOKENS = 2048
_NAMED = 3


class Token(NamedTuple):
    """Where a sampled token lies."""

    slice_id: str
    row: int
    col: int


@dataclass(frozen=True, slots=True)
class SelectedFeatures:
    """Slices of one dataset with their vectors."""

    job: Job
    """Names the slices, the backbone and the sizes."""
    donors: Donors
    """Holds the vectors."""
    transform: Transform | None = None
    """How its tokens are aligned."""

    @property
    def name(self) -> str:
        """``NAME`` or ``NAME:SPLIT``."""
        return str(self.job.selection)

    def slices(self, level: str) -> Sample:
        """One vector a slice.

        Raises:
            StoreError: Vectors that are not finite; the slices are named.
        """
        if self.transform is not None and level == "slice":
            vectors: Float32[np.ndarray, "slice channel"] = np.stack(
                [self.grid(position).mean(axis=(0, 1)) for position in range(len(self))]
            )
        else:
            which = "pooled" if level == "slice" else "cls"
            vectors = np.stack([self.donors.vectors(place)[which] for place in self.job.places])
        self._check_finite(np.isfinite(vectors).all(axis=1))
        return Sample(vectors, np.arange(len(vectors)))

    def tokens(self, name_of_class: str | None) -> tuple[Sample, list[Token]]:
        """A sample of patch tokens, equally many of each slice where it has them.

        Args:
            name_of_class: One of :data:`CLASSES`, or None for any token.

        Returns:
            At most about 2,000 tokens in the order of the slices, and where they lie.

        Raises:
            DatasetError: A class is asked for, and a slice has no mask.
            StoreError: Tokens that are not finite; the slices are named.
        """
        share = max(1, _MOST_TOKENS // len(self.job.places))
        vectors: list[Float32[np.ndarray, "token channel"]] = []
        owners: list[Int64[np.ndarray, " token"]] = []
        tokens: list[Token] = []
        finite = np.ones(len(self.job.places), dtype=bool)
        for position, (item, place) in enumerate(
            zip(self.job.slices, self.job.places, strict=True)
        ):
            grid = self.grid(position)
            finite[position] = np.isfinite(grid).all()
            candidates = self._candidates(position, name_of_class)
            # The slice's pixels decide, so that the sample is the same in every command.
            rng = np.random.default_rng(int(item.pixel_sha256[:12], 16))
            chosen = np.sort(rng.permutation(len(candidates))[:share])
            flat = candidates[chosen]
            rows, columns = np.divmod(flat, place.grid[1])
            vectors.append(grid.reshape(-1, grid.shape[-1])[flat])
            owners.append(np.full(len(flat), position))
            tokens += [
                Token(item.id, int(row), int(column))
                for row, column in zip(rows, columns, strict=True)
            ]
        self._check_finite(finite)
        return Sample(np.concatenate(vectors), np.concatenate(owners)), tokens

    def __len__(self) -> int:
        return len(self.job.places)

    def moments(self) -> Moments:
        """Of all tokens, to fit an alignment to.

        Raises:
            StoreError: A token is not finite.
        """
        places, name = self.job.places, self.job.selection.dataset
        recipes = [self.job.recipe.sha256()]
        return ensure_moments(name, self.donors.holder(places[0]), recipes, places, self.grid)

    def grid(self, position: int) -> Float32[np.ndarray, "row col channel"]:
        """The aligned tokens of one slice."""
        tokens = self.donors.tokens(self.job.places[position]).astype(np.float32)
        return tokens if self.transform is None else self.transform(tokens)

    @property
    def labelled(self) -> bool:
        """Whether every slice has a mask."""
        return all(item.mask is not None for item in self.job.slices)

    def _candidates(self, position: int, name_of_class: str | None) -> Int64[np.ndarray, " token"]:
        """Flat positions of the tokens of a class in one slice."""
        rows, columns = self.job.places[position].grid
        if name_of_class is None:
            return np.arange(rows * columns)
        if not self.labelled:
            raise DatasetError(
                f"not every slice of {self.name} has a mask; a distance by class needs them: "
                f"leave --by-class out, or choose a labelled split.",
                subject=self.name,
            )
        patch = self.job.pitch
        item = self.job.slices[position]
        labels = training_mask(item, self.job.dataset.classes, (rows * patch, columns * patch))
        share = occupancy(labels, patch).ravel()
        # Patches that are ignored are NaN, and neither.
        of_class = share >= FULL if name_of_class == "foreground" else share <= EMPTY
        return np.flatnonzero(of_class)

    def _check_finite(self, finite: np.ndarray) -> None:
        broken = [item.id for item, fine in zip(self.job.slices, finite, strict=True) if not fine]
        if broken:
            more = len(broken) - _NAMED
            raise StoreError(
                f"the features of {', '.join(broken[:_NAMED])}"
                f"{f' and {more} more' if more > 0 else ''} in {self.name} are not finite; "
                f"expected numbers: extract again with --dtype float32 or --precision float32.",
                subject=tuple(broken),
            )


_THUMBNAIL = 96


def project(features: Sequence[SelectedFeatures]) -> pl.DataFrame:
    """The first two principal components, fitted to the slice means of all sets jointly.

    Returns:
        A row a slice: ``domain``, ``slice_id``, ``pc1``, ``pc2``, ``explained1``, ``explained2``
        (shares of the variance), ``thumbnail`` (a picture as a data address).
    """
    vectors = [item.slices("slice").vectors for item in features]
    pca = PCA(n_components=2, svd_solver="full")
    points = pca.fit_transform(np.concatenate(vectors).astype(np.float64))
    slices = [(item.name, one) for item in features for one in item.job.slices]
    return pl.DataFrame(
        [
            {
                "domain": name,
                "slice_id": item.id,
                "pc1": float(x),
                "pc2": float(y),
                "explained1": float(pca.explained_variance_ratio_[0]),
                "explained2": float(pca.explained_variance_ratio_[1]),
                "thumbnail": _data_address(read_reduced_image(item.image, item.grey_window)),
            }
            for (name, item), (x, y) in zip(slices, points, strict=True)
        ]
    )


def _data_address(pixels: UInt8[np.ndarray, "row col"]) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
