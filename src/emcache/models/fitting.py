"""What heads share that are fitted to a few labelled tokens: their points, scores and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from emcache.models.heads import Head

_TINY = 1e-6


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
        rows, columns = cells_of(self.points, self.tokens.shape[:2])
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


def cells_of(
    points: Float[np.ndarray, "point 2"], shape: tuple[int, ...]
) -> tuple[Int64[np.ndarray, " point"], Int64[np.ndarray, " point"]]:
    """The cell of a grid that each point lies in."""
    cells = (points * np.array(shape)).astype(np.int64)
    cells = np.minimum(cells, np.array(shape) - 1)
    return cells[:, 0], cells[:, 1]
