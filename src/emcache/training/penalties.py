"""Penalties that make a head's hidden tokens alike in all datasets of a training.

======================= ==========================================================================
``mmd``                 squared maximum mean discrepancy between the datasets, with a sum of
                        Gaussian kernels about the median distance (Long et al., ICML 2015)
``gradient-reversal``   cross-entropy of a classifier that tells the datasets apart; the head gets
                        its gradient with the sign reversed (Ganin and Lempitsky, ICML 2015)
======================= ==========================================================================

Hidden tokens are those behind the head's first layer, before any upsampling.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from emcache.errors import UsageError
from emcache.models.heads import DeconvHead, Head, SkipHead
from emcache.training.protocol import Protocol
from emcache.training.sampling import Sources

_TOKENS = 256
_WIDTH = 64
_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)

Hidden = Float[Tensor, "batch channel row col"]


class Penalty(nn.Module, ABC):
    """What is added to the loss of a step.

    Args:
        weight: By which it is multiplied.
        dataset_of: Number of the dataset that an example is of, by its position.
    """

    def __init__(self, weight: float, dataset_of: Callable[[int], int]) -> None:
        super().__init__()
        self._weight = weight
        self._dataset_of = dataset_of

    def forward(self, hidden: Sequence[tuple[Sequence[int], Hidden]]) -> Float[Tensor, ""]:
        """The penalty of a step, with its weight.

        Args:
            hidden: Positions and hidden tokens of each batch.
        """
        tokens, datasets = [], []
        for positions, maps in hidden:
            flat = maps.float().flatten(2).transpose(1, 2)
            for position, own in zip(positions, flat, strict=True):
                # Evenly spread, so that no random number is drawn and a resumed run is the same.
                chosen = own[:: max(1, len(own) // _TOKENS)][:_TOKENS]
                tokens.append(chosen)
                datasets += [self._dataset_of(position)] * len(chosen)
        whole = torch.cat(tokens)
        return self._weight * self.of(whole, torch.tensor(datasets, device=whole.device))

    @abstractmethod
    def of(
        self, tokens: Float[Tensor, "token channel"], datasets: Int64[Tensor, " token"]
    ) -> Float[Tensor, ""]:
        """The penalty of some tokens, without its weight."""


class Discrepancy(Penalty):
    """Maximum mean discrepancy; 0 in a step that draws from one dataset alone."""

    @override
    def of(
        self, tokens: Float[Tensor, "token channel"], datasets: Int64[Tensor, " token"]
    ) -> Float[Tensor, ""]:
        squared = torch.cdist(tokens, tokens).square()
        # The kernel's width is a yardstick and no way for the head to lower the penalty.
        median = squared.detach().median().clamp(min=1e-12)
        kernel = torch.stack([torch.exp(-squared / (b * median)) for b in _BANDWIDTHS]).mean(dim=0)
        sides = [datasets == number for number in sorted(set(datasets.tolist()))]
        total = tokens.new_zeros(())
        for place, one in enumerate(sides):
            for other in sides[:place]:
                within = kernel[one][:, one].mean() + kernel[other][:, other].mean()
                total = total + within - 2 * kernel[one][:, other].mean()
        return total


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        return -gradients[0]


class DomainClassifier(Penalty):
    """Two layers that tell the datasets apart, behind a reversed gradient."""

    def __init__(
        self, weight: float, dataset_of: Callable[[int], int], channels: int, datasets: int
    ) -> None:
        super().__init__(weight, dataset_of)
        self.layers = nn.Sequential(
            nn.Linear(channels, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, datasets)
        )

    @override
    def of(
        self, tokens: Float[Tensor, "token channel"], datasets: Int64[Tensor, " token"]
    ) -> Float[Tensor, ""]:
        reversed_tokens: Tensor = _Reversal.apply(tokens)
        return functional.cross_entropy(self.layers(reversed_tokens), datasets)


def build_penalty(protocol: Protocol, sources: Sources, head: Head, seed: int) -> Penalty | None:
    """The penalty of a protocol; None where it has none.

    Args:
        protocol: Of the training.
        sources: What is trained on.
        head: Whose hidden tokens are meant.
        seed: Of a classifier's first weights.
    """
    if protocol.penalty == "none":
        return None
    owners = {
        source.first + place: number
        for number, source in enumerate(sources.items)
        for place in range(len(source.slices))
    }
    if protocol.penalty == "mmd":
        return Discrepancy(protocol.penalty_weight, owners.__getitem__)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = len(next(hidden_layer(head).parameters()))
        return DomainClassifier(
            protocol.penalty_weight, owners.__getitem__, channels, len(sources.items)
        )


def hidden_layer(head: Head) -> nn.Sequential:
    """The layer whose output a penalty reads."""
    assert isinstance(head, DeconvHead | SkipHead)  # noqa: S101 - check_penalty sees to it
    return head.stem


def check_penalty(protocol: Protocol, sources: Sources) -> None:
    """Refuse a penalty that would do nothing.

    Raises:
        UsageError: One dataset alone, or a head without hidden tokens.
    """
    if protocol.penalty == "none":
        return
    if len(sources.items) < 2:
        raise UsageError(
            f"a penalty ({protocol.penalty}) makes several datasets alike, and {sources.names} is "
            f"one; leave it out, or train on more.",
            subject="penalty",
        )
    if protocol.head == "linear":
        raise UsageError(
            "a linear head has no hidden tokens that a penalty could make alike; choose another "
            "head, or leave the penalty out.",
            subject="penalty",
        )
