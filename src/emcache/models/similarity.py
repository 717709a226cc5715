"""Heads by similarity: how far a token lies from those that were clicked (DINOSim)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from emcache.errors import UsageError
from emcache.models.fitting import Annotated, FittedHead

_QUANTILES = (0.01, 0.99)
_CHUNK = 1024


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
