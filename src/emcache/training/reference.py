"""How far a slice lies from those that a run was trained on.

A slice's distance is the mean over its patch tokens of the squared Mahalanobis distance to the
training tokens of a dataset, divided by the number of channels (Lee et al., *A Simple Unified
Framework for Detecting Out-of-Distribution Samples*, NeurIPS 2018, on tokens in place of a class's
features). The same of the slice's mean token says whether the slice as a whole is shifted.

Tokens of one slice are alike, and slices beside each other too, so no table gives the distance's
distribution. Every training slice is measured against the others, without the block of neighbours
that it lies in; the **p-value** of a new slice is the share of training slices that lie at least as
far, the new one counted with them. It is the p-value of conformal prediction, up to the block that
is missing from each of these measurements, and 1 / (slices + 1) at least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from emcache.errors import RecordError

REFERENCE_FILE = "reference.npz"
"""File of a run's record: a reference for each dataset that it was trained on."""
FEWEST_SLICES = 4
"""With fewer there is nothing to compare a new slice with."""
SHRINKAGE = 0.1
"""Share of the covariance that its diagonal's mean takes the place of. Tokens are many, but they
come from few slices: without it, directions that hardly vary among these decide everything."""
ALPHA = 0.05
"""A slice is outside where its p-value is at most this, or the smallest that there can be."""

_MOST_BLOCKS = 10
_TOKENS = 256

TokensOf = Callable[[int], Float[np.ndarray, "row col channel"]]
"""The tokens of a slice by its position, before any alignment: of the last layer alone, where a
head reads several, since covariances grow with the square of the channels."""


class Distance(NamedTuple):
    """How far a slice lies from the training slices of one dataset."""

    tokens: float
    """Mean squared Mahalanobis distance of its tokens over the channels; 1 where they are like
    those of training."""
    slice: float
    """The same of its mean token."""


class Familiarity(NamedTuple):
    """What became of a slice."""

    nearest: str
    """Dataset of the training that it is most like."""
    distance: Distance
    """From that."""
    p_tokens: float
    """Share of that dataset's slices, this one among them, whose tokens lie at least as far."""
    p_slice: float
    """The same of mean tokens."""
    outside: bool
    """Whether its tokens are unlike those of every dataset of the training."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Tokens of the training slices of one dataset, as their mean and covariance."""

    name: str
    """Of the dataset."""
    mean: Float64[np.ndarray, " channel"]
    precision: Float64[np.ndarray, "channel channel"]
    """Inverse of the shrunken covariance."""
    tokens: Float64[np.ndarray, " slice"]
    """Distance of every training slice's tokens from the others."""
    slices: Float64[np.ndarray, " slice"]
    """The same of mean tokens."""

    @property
    def smallest(self) -> float:
        """The smallest p-value that there can be."""
        return 1 / (len(self.tokens) + 1)

    def distance(self, tokens: Float[np.ndarray, "row col channel"]) -> Distance:
        """How far a slice lies.

        Args:
            tokens: All of them; a part is taken, evenly spread.
        """
        return _distance(_sample(tokens), self.mean, self.precision)

    def p_values(self, distance: Distance) -> tuple[float, float]:
        """Of tokens and of the mean token."""
        known = ((self.tokens, distance.tokens), (self.slices, distance.slice))
        tokens, slices = ((1 + int((seen >= own).sum())) * self.smallest for seen, own in known)
        return tokens, slices


def take_reference(name: str, tokens_of: TokensOf, positions: Sequence[int]) -> Reference | None:
    """The reference of a dataset.

    Args:
        name: Of the dataset.
        tokens_of: Tokens by position.
        positions: Of the training slices, in the order of their stack.

    Returns:
        None for fewer than :data:`FEWEST_SLICES`.
    """
    if len(positions) < FEWEST_SLICES:
        return None
    samples = [_sample(tokens_of(position)) for position in positions]
    whole = _Sums.of(samples)
    blocks = np.array_split(np.arange(len(samples)), min(_MOST_BLOCKS, len(samples) // 2))
    distances = []
    for block in blocks:
        rest = whole.without(_Sums.of([samples[place] for place in block]))
        distances += [_distance(samples[place], rest.mean, rest.precision()) for place in block]
    tokens, slices = np.array(distances).T
    return Reference(name, whole.mean, whole.precision(), tokens, slices)


def compare(
    references: Sequence[Reference], tokens: Float[np.ndarray, "row col channel"]
) -> Familiarity:
    """How far a slice lies from the training data: that of the nearest dataset counts.

    Args:
        references: Of every dataset of the training, at least one.
        tokens: Of the slice, before any alignment, of the last layer that the head reads.
    """
    found = []
    for reference in references:
        distance = reference.distance(tokens)
        p_tokens, p_slice = reference.p_values(distance)
        outside = p_tokens <= max(ALPHA, reference.smallest)
        found.append(Familiarity(reference.name, distance, p_tokens, p_slice, outside))
    nearest = max(found, key=lambda one: (one.p_tokens, -one.distance.tokens))
    return nearest._replace(outside=all(one.outside for one in found))


def save_references(path: Path, references: Sequence[Reference]) -> None:
    """Keep the references of a training."""
    arrays: dict[str, np.ndarray] = {"names": np.array([item.name for item in references])}
    for place, item in enumerate(references):
        arrays |= {
            f"{place}/mean": item.mean,
            f"{place}/precision": item.precision.astype(np.float32),
            f"{place}/tokens": item.tokens,
            f"{place}/slices": item.slices,
        }
    np.savez(path, allow_pickle=False, **arrays)


def load_references(path: Path) -> list[Reference]:
    """What :func:`save_references` kept.

    Raises:
        RecordError: The file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            return [
                Reference(
                    str(name),
                    *(
                        np.asarray(kept[f"{place}/{part}"], np.float64)
                        for part in ("mean", "precision", "tokens", "slices")
                    ),
                )
                for place, name in enumerate(kept["names"])
            ]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RecordError(
            f"{path} cannot be read ({error}); restore the record from a copy, or train again.",
            subject=path,
        ) from error


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over tokens."""

    count: int
    total: Float64[np.ndarray, " channel"]
    squares: Float64[np.ndarray, "channel channel"]

    @classmethod
    def of(cls, samples: Sequence[Float64[np.ndarray, "_ channel"]]) -> _Sums:
        tokens = np.concatenate(samples)
        return cls(len(tokens), tokens.sum(axis=0), tokens.T @ tokens)

    def without(self, other: _Sums) -> _Sums:
        return _Sums(
            self.count - other.count, self.total - other.total, self.squares - other.squares
        )

    @property
    def mean(self) -> Float64[np.ndarray, " channel"]:
        mean: Float64[np.ndarray, " channel"] = self.total / self.count
        return mean

    def precision(self) -> Float64[np.ndarray, "channel channel"]:
        covariance = (self.squares - self.count * np.outer(self.mean, self.mean)) / (self.count - 1)
        level = max(float(np.trace(covariance)) / len(covariance), np.finfo(np.float64).tiny)
        shrunken = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(covariance))
        precision: Float64[np.ndarray, "channel channel"] = np.linalg.inv(shrunken)
        return precision


def _sample(tokens: Float[np.ndarray, "row col channel"]) -> Float64[np.ndarray, "token channel"]:
    flat = tokens.reshape(-1, tokens.shape[-1])
    chosen = np.linspace(0, len(flat) - 1, min(_TOKENS, len(flat))).astype(int)
    sample: Float64[np.ndarray, "token channel"] = flat[chosen].astype(np.float64)
    return sample


def _distance(
    tokens: Float64[np.ndarray, "token channel"],
    mean: Float64[np.ndarray, " channel"],
    precision: Float64[np.ndarray, "channel channel"],
) -> Distance:
    centred = tokens - mean
    squared = np.einsum("ti,ti->t", centred @ precision, centred)
    shift = centred.mean(axis=0)
    channels = tokens.shape[1]
    return Distance(float(squared.mean()) / channels, float(shift @ precision @ shift) / channels)
