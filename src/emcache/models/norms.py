"""Batch norm, with a GELU after it or with statistics of their own for each domain.

Of domains, scale and shift are learned from all together; mean and variance are those of the domain
that a batch comes from. A domain that was never trained on needs unlabelled slices alone (Li et
al., *Revisiting Batch Normalization For Practical Domain Adaptation*, arXiv 1603.04779).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from emcache.models.norm_gelu import norm_gelu


class BatchNormGELU2d(nn.BatchNorm2d):
    """PyTorch's batch norm, and GELU, in one pass where that is possible."""

    @override
    def forward(
        self, values: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch channel row col"]:
        """Normalise by the batch while training, else by the running statistics; then GELU."""
        assert self.running_mean is not None and self.running_var is not None  # noqa: S101, PT018
        assert self.num_batches_tracked is not None and self.momentum is not None  # noqa: S101, PT018
        if self.training:
            self.num_batches_tracked.add_(1)
        return norm_gelu(
            values,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


class DomainBatchNorm2d(nn.Module):
    """Batch norm whose running mean and variance are kept for each domain.

    Args:
        channels: Of its input.
        domains: How many there are at first.
        gelu: Whether a GELU comes after it.
    """

    eps = 1e-5

    def __init__(self, channels: int, domains: int, *, gelu: bool = False) -> None:
        super().__init__()
        self._normalise = norm_gelu if gelu else functional.batch_norm
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        self.register_buffer("running_mean", torch.zeros(domains, channels))
        self.register_buffer("running_var", torch.ones(domains, channels))
        self.register_buffer("num_batches_tracked", torch.zeros(domains, dtype=torch.long))
        self.momentum = 0.1
        """Share of a new batch in the running statistics."""
        self.cumulative = False
        """Whether every batch has the same share in place of that."""
        self.domain = 0
        """Whose statistics count."""

    @override
    def forward(
        self, values: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch channel row col"]:
        """Normalise by the batch while training, else by the domain's running statistics."""
        if self.training:
            self.num_batches_tracked[self.domain] += 1
        momentum = 1 / batches_seen(self) if self.cumulative and self.training else self.momentum
        return self._normalise(
            values,
            self.running_mean[self.domain],
            self.running_var[self.domain],
            self.weight,
            self.bias,
            self.training,
            momentum,
            self.eps,
        )

    def forget(self, domain: int) -> None:
        """Make room for a domain, or drop what is known of it."""
        known = len(self.running_mean)
        if domain == known:
            self.running_mean = torch.cat([self.running_mean, self.running_mean[:1]])
            self.running_var = torch.cat([self.running_var, self.running_var[:1]])
            self.num_batches_tracked = torch.cat(
                [self.num_batches_tracked, self.num_batches_tracked[:1]]
            )
        self.running_mean[domain] = 0
        self.running_var[domain] = 1
        self.num_batches_tracked[domain] = 0


BatchNorm = nn.BatchNorm2d | DomainBatchNorm2d
Norm = Callable[..., BatchNorm]
"""From a number of channels to a batch norm; ``gelu=True`` for one with a GELU after it."""


def plain_norm(channels: int, *, gelu: bool = False) -> nn.BatchNorm2d:
    """Batch norm that knows no domains."""
    return BatchNormGELU2d(channels) if gelu else nn.BatchNorm2d(channels)


def batches_seen(norm: BatchNorm) -> int:
    """How many batches the running statistics that count come from."""
    if isinstance(norm, DomainBatchNorm2d):
        return int(norm.num_batches_tracked[norm.domain])
    return int(norm.num_batches_tracked or 0)


def domain_norms(module: nn.Module) -> list[DomainBatchNorm2d]:
    """Every batch norm of a model that tells domains apart."""
    return [part for part in module.modules() if isinstance(part, DomainBatchNorm2d)]


def select_domain(module: nn.Module, domain: int) -> None:
    """Use the statistics of one domain from now on."""
    for norm in domain_norms(module):
        norm.domain = domain


@contextmanager
def gathering(module: nn.Module, domain: int) -> Iterator[None]:
    """Within it, forward passes give one domain its statistics; nothing else is learned.

    Every layer sees what those before it make of the same batch, and keeps the mean over all
    batches, as ``torch.optim.swa_utils.update_bn`` does for plain batch norm.
    """
    norms = domain_norms(module)
    for norm in norms:
        norm.forget(domain)
        norm.cumulative = True
    module.train()
    try:
        with torch.no_grad():
            yield
    finally:
        module.eval()
        for norm in norms:
            norm.cumulative = False
