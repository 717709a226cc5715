"""Cached tokens as a dataset of PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from emcache.cache.feature_set import FeatureSet
from emcache.cache.labels import LabelSet, ensure_labels
from emcache.data.dataset import Slice
from emcache.data.tiles import cut_dataset
from emcache.data.tiling import tiling_of
from emcache.errors import StoreError, UsageError
from emcache.library.workspace import Dataset
from emcache.progress import Quiet, Reporter

Item = (
    Float32[Tensor, "channel row col"]
    | tuple[Float32[Tensor, "channel row col"], UInt8[Tensor, "height width"]]
)
"""Tokens of a slice, alone or with its mask."""


class TokenDataset(TorchDataset[Item]):
    """Tokens of a feature set, slice by slice, with masks at training size where they are wanted.

    A ``DataLoader`` takes it as it is. Slices of several sizes need a batch of one.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        labels: Dataset | None = None,
        split: str | None = None,
        *,
        progress: Reporter | None = None,
    ) -> None:
        """Open the tokens, and make masks at their size where they are not there yet.

        Args:
            feature_set: The tokens.
            labels: The dataset that they are of: an item is then ``(tokens, mask)``, the mask 0 for
                the background, 1 and up for the classes, 255 for what is ignored.
            split: Only slices of this split of that dataset.
            progress: Receives progress.

        Raises:
            UsageError: A split without a dataset.
            StoreError: The tokens are of other slices than the dataset's.
            DatasetError: A slice has no mask, or there is no such split.
        """
        if split is not None and labels is None:
            raise UsageError(
                f"tokens alone have no split {split!r:.200}; expected the dataset that they are "
                f"of: give it as labels.",
                subject=split,
            )
        self.feature_set = feature_set
        self._labels: LabelSet | None = None
        self.positions = list(range(len(feature_set)))
        """Places in the feature set of the slices that are in here."""
        if labels is not None:
            slices = _slices_of(feature_set, labels)
            chosen = None if split is None else {item.id for item in labels.select(split)}
            self._labels = ensure_labels(
                feature_set, slices, labels.data.classes, progress or Quiet()
            )
            self.positions = [
                place
                for place, item in enumerate(slices)
                if chosen is None or item.whole.id in chosen
            ]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Item:
        """Tokens in float32, channels first, and the mask where labels were given.

        Raises:
            IndexError: There are not so many slices.
            StoreError: The bytes fail their checksum; the slice is named.
        """
        place = self.positions[index]
        values = np.array(self.feature_set.tokens(place), dtype=np.float32)
        tokens = torch.from_numpy(values).permute(2, 0, 1)
        if self._labels is None:
            return tokens
        return tokens, torch.from_numpy(np.array(self._labels.mask(place)))


def _slices_of(feature_set: FeatureSet, labels: Dataset) -> list[Slice]:
    """The dataset's slices in the order of the tokens."""
    tiling = tiling_of(feature_set.description)
    data = cut_dataset(labels.workspace.place, labels.data, tiling, Quiet())
    by_pixels = {item.pixel_sha256: item for item in data.slices}
    missing = [item.id for item in feature_set.slices if item.pixel_sha256 not in by_pixels]
    if missing:
        raise StoreError(
            f"{feature_set.name} has tokens of {missing[0]} ({len(missing)} of {len(feature_set)} "
            f"slices), which {labels.name} does not hold as it is today; expected tokens of its "
            f"slices: extract them again.",
            subject=feature_set.name,
        )
    return [by_pixels[item.pixel_sha256] for item in feature_set.slices]
