"""Embeddings as tables: one vector a slice, or one a token, for the warehouse.

Columns: ``dataset``, ``slice_id``, ``level`` (``slice``: mean of the patch tokens; ``cls``: class
token; ``token``: one patch token), ``class`` (of a token; NULL for whole slices), ``token_row`` and
``token_col`` (NULL likewise), ``vector``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float32

from emcache.cache.feature_set import FeatureSet
from emcache.cache.plan import Job


def embedding_table(
    dataset: str,
    slice_ids: Sequence[str],
    level: str,
    vectors: Float32[np.ndarray, "vector channel"],
    *,
    name_of_class: str | None = None,
    places: Sequence[tuple[int, int]] | None = None,
) -> pl.DataFrame:
    """Rows for some vectors of one dataset, level and class.

    Args:
        dataset: Whose.
        slice_ids: Slice of each vector.
        level: ``slice``, ``cls`` or ``token``.
        vectors: In float32.
        name_of_class: Of tokens.
        places: Row and column of each token.
    """
    count = len(slice_ids)
    rows, columns = zip(*places, strict=True) if places else ([None] * count,) * 2
    return pl.DataFrame(
        {
            "dataset": [dataset] * count,
            "slice_id": list(slice_ids),
            "level": [level] * count,
            "class": pl.Series([name_of_class] * count, dtype=pl.String),
            "token_row": pl.Series(rows, dtype=pl.Int32),
            "token_col": pl.Series(columns, dtype=pl.Int32),
            "vector": pl.Series(
                np.ascontiguousarray(vectors, dtype=np.float32),
                dtype=pl.Array(pl.Float32, vectors.shape[1]),
            ),
        }
    )


def slice_embeddings(job: Job, feature_set: FeatureSet) -> pl.DataFrame:
    """Both vectors of every slice of a feature set."""
    ids, name = [item.id for item in job.slices], job.selection.dataset
    return pl.concat(
        [
            embedding_table(name, ids, "slice", feature_set.pooled()),
            embedding_table(name, ids, "cls", feature_set.cls()),
        ]
    )
