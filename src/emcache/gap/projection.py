"""Slices in the plane: principal components of all sets together."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import UInt8
from PIL import Image
from sklearn.decomposition import PCA

from emcache.data.images import read_image
from emcache.gap.samples import SelectedFeatures

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
                "thumbnail": _data_address(read_image(item.image, item.grey_window)),
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
