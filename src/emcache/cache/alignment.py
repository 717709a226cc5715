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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float64

from emcache.errors import RecordError, StoreError

Method = Literal["none", "standardise", "whiten", "coral", "quantile", "batch-norm"]

ALIGNMENT_FILE = "alignment.npz"
"""File of a run's record: the moments of every domain that it was trained on."""

_QUANTILES = np.linspace(0, 1, 257)
# Quantiles are taken of this many tokens, evenly spread; their error is below 1 %.
_SAMPLED = 50_000
_WITH_REFERENCE = ("coral", "quantile")
_OF_HEADS = ("none", "batch-norm")

Transform = Callable[[Float[np.ndarray, "*place channel"]], Float[np.ndarray, "*place channel"]]
"""Tokens to tokens, in the type of what is given."""


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known of a domain's tokens."""

    name: str
    """Of the dataset."""
    count: int
    """Tokens."""
    mean: Float64[np.ndarray, " channel"]
    covariance: Float64[np.ndarray, "channel channel"]
    quantiles: Float64[np.ndarray, "quantile channel"]

    @property
    def deviation(self) -> Float64[np.ndarray, " channel"]:
        """Of each channel; 1 for a channel that is constant."""
        deviation = np.sqrt(np.diag(self.covariance))
        return np.where(deviation > 0, deviation, 1.0)


def moments_of(name: str, read: Callable[[int], np.ndarray], positions: Sequence[int]) -> Moments:
    """Mean, covariance and quantiles over all tokens of some slices.

    Args:
        name: Of the dataset, for errors.
        read: The tokens of a slice by its position, ``(row, col, channel)``.
        positions: Of the slices.

    Raises:
        StoreError: There are no such slices, or a token is not finite.
    """
    if not len(positions):
        raise StoreError(
            f"dataset {name} has no slices to take an alignment from; expected some in the split "
            f"of align_on (train, or test): set its split in emcache.toml.",
            subject=name,
        )
    # Moments about the first slice's mean: sums of squares far from zero would lose digits.
    origin = _flat(read(positions[0])).mean(axis=0)
    total, squares, count = np.zeros_like(origin), 0.0, 0
    sampled = []
    for position in positions:
        tokens = _flat(read(position))
        step = max(1, len(tokens) * len(positions) // _SAMPLED)
        sampled.append(tokens[::step])
        centred = tokens - origin
        total = total + centred.sum(axis=0)
        squares = squares + centred.T @ centred
        count += len(tokens)
    shift = total / count
    covariance = (squares - count * np.outer(shift, shift)) / max(count - 1, 1)
    if not np.isfinite(covariance).all():
        raise StoreError(
            f"tokens of {name} are not finite; run `emcache cache verify`.", subject=name
        )
    quantiles = np.quantile(np.concatenate(sampled), _QUANTILES, axis=0)
    return Moments(name, count, origin + shift, covariance, quantiles)


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


def save_moments(path: Path, domains: Sequence[Moments]) -> None:
    """Keep the moments of every domain of a training, the reference first."""
    arrays: dict[str, np.ndarray] = {"names": np.array([domain.name for domain in domains])}
    for place, domain in enumerate(domains):
        arrays |= {
            f"{place}/count": np.array(domain.count),
            f"{place}/mean": domain.mean,
            f"{place}/covariance": domain.covariance,
            f"{place}/quantiles": domain.quantiles,
        }
    np.savez(path, allow_pickle=False, **arrays)


def load_moments(path: Path) -> Mapping[str, Moments]:
    """What :func:`save_moments` kept, by the datasets' names, the reference first.

    Raises:
        RecordError: The file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {
                str(name): Moments(
                    str(name),
                    int(kept[f"{place}/count"]),
                    *(
                        np.asarray(kept[f"{place}/{part}"], np.float64)
                        for part in ("mean", "covariance", "quantiles")
                    ),
                )
                for place, name in enumerate(kept["names"])
            }
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RecordError(
            f"{path} cannot be read ({error}); restore the record from a copy, or train again.",
            subject=path,
        ) from error


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


def _flat(tokens: Float[np.ndarray, "row col channel"]) -> Float64[np.ndarray, "token channel"]:
    return np.asarray(tokens, np.float64).reshape(-1, tokens.shape[-1])


def _double(tokens: Float[np.ndarray, "*place channel"]) -> Float[np.ndarray, "*place channel"]:
    """In an arithmetic that loses nothing that the tokens had."""
    return tokens.astype(np.float32 if tokens.dtype == np.float16 else tokens.dtype)


def _as(
    tokens: Float[np.ndarray, "*place channel"], values: Float[np.ndarray, "*place channel"]
) -> Float[np.ndarray, "*place channel"]:
    return values.astype(tokens.dtype)


METHODS: tuple[str, ...] = get_args(Method)
"""Every way of aligning, ``none`` first."""
