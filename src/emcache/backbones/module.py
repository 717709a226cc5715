"""What the adapters of all libraries share: a module with a spec, and strict loading of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from emcache.backbones.protocol import Features
from emcache.backbones.registry import BackboneSpec
from emcache.errors import WeightsError

_NAMED_KEYS = 3


class BackboneModule(nn.Module, ABC):
    """A vision transformer of some library, behind the protocol of all backbones."""

    model: Any
    """The library's own ``nn.Module``; each library names its parts in its own way."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.spec.patch

    @property
    def dim(self) -> int:
        """Channels of a token."""
        return self.spec.dim

    @property
    @abstractmethod
    def blocks(self) -> nn.Module:
        """The transformer's blocks, in order; it has a length."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Features:
        """Patch tokens and class token of the last layer, after its normalisation."""

    @abstractmethod
    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A state in any of the family's official formats, under the library's own names."""

    def make_adaptable(self) -> None:
        """Bring the layers that adapters go on into a form that PEFT can wrap; once weights are in.

        Tokens stay the same to within rounding; names of parameters may change.
        """

    def checkpoint_activations(self) -> None:
        """Keep only each block's input for the backward pass, and compute the rest again."""
        self.model.set_grad_checkpointing(True)

    def load(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load weights in any of the family's official formats.

        Args:
            state: Tensors by name.
            source: What to call the weights in an error.

        Raises:
            WeightsError: The weights do not fit; the first keys that differ are named.
        """
        given = self.convert(state)
        differing = _differing_keys(self.model.state_dict(), given)
        if differing:
            more = len(differing) - _NAMED_KEYS
            raise WeightsError(
                f"{source} does not fit {self.spec.name}: {'; '.join(differing[:_NAMED_KEYS])}"
                f"{f' (and {more} more)' if more > 0 else ''}; choose the weights of "
                f"{self.spec.architecture}.",
                subject=source,
            )
        self.model.load_state_dict(dict(given))


def _differing_keys(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    differing = []
    for key in (*expected, *(key for key in given if key not in expected)):
        if key not in given:
            differing.append(f"{key} is missing")
        elif key not in expected:
            differing.append(f"{key} is not part of the backbone")
        elif given[key].shape != expected[key].shape:
            have, want = (tuple(tensors[key].shape) for tensors in (given, expected))
            differing.append(f"{key} has shape {have} instead of {want}")
    return differing
