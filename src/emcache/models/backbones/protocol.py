"""What every backbone looks like from the outside."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


class Features(NamedTuple):
    """What a backbone makes of a batch of slices."""

    tokens: Float[Tensor, "batch channel row col"]
    """Patch tokens of the last layer as a grid; prefix tokens are dropped."""
    cls: Float[Tensor, "batch channel"]
    """The class token."""


@runtime_checkable
class Backbone(Protocol):
    """A frozen vision transformer."""

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""

    @property
    def dim(self) -> int:
        """Channels of a token."""

    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Tokens of normalised images whose sides are multiples of the patch."""
