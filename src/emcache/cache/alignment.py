"""Alignment of tokens: a small transform for each domain, fitted to its own unlabelled tokens.

=============== ==================================================================================
``standardise`` ``(x - m) / s``, channel by channel
``whiten``      ``(x - m) C^(-1/2)``: the symmetric root, so that channels stay what they are
``coral``       ``(x - m) C^(-1/2) R^(1/2) + r``, to mean ``r`` and covariance ``R`` of a reference
                (Sun, Feng and Saenko, AAAI 2016, with the mean as well)
``quantile``    each channel's distribution becomes the reference's
``batch-norm``  tokens stay; the head's batch norms keep statistics for each domain
                (:mod:`emcache.models.norms`)
=============== ==================================================================================

``m``, ``s`` and ``C`` are mean, deviation and covariance (divisor n - 1) of the domain's tokens.
Tokens are transformed while they are read; no feature set is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float64

from emcache.cache.moments import Moments
from emcache.errors import StoreError

Method = Literal["none", "standardise", "whiten", "coral", "quantile", "batch-norm"]

_WITH_REFERENCE = ("coral", "quantile")
_OF_HEADS = ("none", "batch-norm")

Transform = Callable[[Float[np.ndarray, "*place channel"]], Float[np.ndarray, "*place channel"]]
"""Tokens to tokens, in the type of what is given."""


def fit(
    method: Method, own: Moments, reference: Moments | None, shrinkage: float = 0.0
) -> Transform | None:
    """The transform of a domain's tokens; None where nothing is to be done.

    Args:
        method: Of :data:`Method`.
        own: Of the domain.
        reference: Of the domain that ``coral`` and ``quantile`` lead to.
        shrinkage: Share of the covariance that its diagonal's mean takes the place of, from 0 to 1.

    Raises:
        StoreError: Too few tokens for the covariance, or no reference.
    """
    if not moves_tokens(method):
        return None
    if method in _WITH_REFERENCE and reference is None:
        raise StoreError(
            f"{method} needs a reference domain, and the run keeps none; train it again.",
            subject=method,
        )
    if method == "standardise":
        mean, deviation = own.mean, own.deviation
        return lambda tokens: _as(tokens, (_double(tokens) - mean) / deviation)
    if method == "quantile":
        assert reference is not None  # noqa: S101 - checked above
        return _Matched(own.quantiles, reference.quantiles)
    root = _root(own, -0.5, shrinkage)
    offset = np.zeros_like(own.mean)
    if method == "coral":
        assert reference is not None  # noqa: S101 - checked above
        root, offset = root @ _root(reference, 0.5, shrinkage), reference.mean
    return lambda tokens: _as(tokens, (_double(tokens) - own.mean) @ root + offset)


def moves_tokens(method: Method) -> bool:
    """Whether a method changes tokens; otherwise it does nothing, or something in the head."""
    return method not in _OF_HEADS


class _Matched:
    """Maps each channel's quantiles onto those of another domain."""

    def __init__(
        self,
        own: Float64[np.ndarray, "quantile channel"],
        other: Float64[np.ndarray, "quantile channel"],
    ) -> None:
        self._own, self._other = own, other

    def __call__(
        self, tokens: Float[np.ndarray, "*place channel"]
    ) -> Float[np.ndarray, "*place channel"]:
        flat = _double(tokens).reshape(-1, tokens.shape[-1])
        matched = np.empty_like(flat)
        for channel in range(flat.shape[1]):
            own, other = self._own[:, channel], self._other[:, channel]
            # Beyond what was seen, a value keeps its distance from the outermost quantile.
            below, above = np.minimum(flat[:, channel] - own[0], 0), flat[:, channel] - own[-1]
            inside = np.interp(flat[:, channel], own, other)
            matched[:, channel] = inside + below + np.maximum(above, 0)
        return _as(tokens, matched.reshape(tokens.shape))


def _root(
    domain: Moments, power: float, shrinkage: float
) -> Float64[np.ndarray, "channel channel"]:
    channels = len(domain.mean)
    covariance = domain.covariance
    if shrinkage:
        level = np.trace(covariance) / channels
        covariance = (1 - shrinkage) * covariance + shrinkage * level * np.eye(channels)
    values, vectors = np.linalg.eigh(covariance)
    least = values.max() * channels * np.finfo(np.float64).eps
    if (domain.count <= channels and not shrinkage) or values.min() <= least:
        raise StoreError(
            f"the covariance of {channels} channels cannot be inverted from {domain.count} tokens "
            f"of {domain.name}; expected more tokens than channels, and no channel that follows "
            f"from others: align by standardise, or set align_shrinkage, as 0.1.",
            subject=domain.name,
        )
    root: Float64[np.ndarray, "channel channel"] = (vectors * values**power) @ vectors.T
    return root


def _double(tokens: Float[np.ndarray, "*place channel"]) -> Float[np.ndarray, "*place channel"]:
    """In an arithmetic that loses nothing that the tokens had."""
    return tokens.astype(np.float32 if tokens.dtype == np.float16 else tokens.dtype)


def _as(
    tokens: Float[np.ndarray, "*place channel"], values: Float[np.ndarray, "*place channel"]
) -> Float[np.ndarray, "*place channel"]:
    return values.astype(tokens.dtype)


METHODS: tuple[str, ...] = get_args(Method)
"""Every way of aligning, ``none`` first."""
