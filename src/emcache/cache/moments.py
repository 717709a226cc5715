"""Mean, covariance and quantiles of a domain's tokens: what an alignment is fitted to.

They are kept beside the feature set, keyed by the recipe of the tokens and the pixels of the
slices, so that no command reads the tokens for them again::

    cache/<feature-set>/moments/<key>.npz
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from emcache.cache.feature_set import FeatureSet
from emcache.cache.recipe import StoredSlice
from emcache.errors import RecordError, StoreError
from emcache.storage import atomic
from emcache.storage.hashing import json_sha256

ALIGNMENT_FILE = "alignment.npz"
"""File of a run's record: the moments of every domain that it was trained on."""
MOMENTS_FOLDER = "moments"
"""Folder in a feature set's."""

_QUANTILES = np.linspace(0, 1, 257)
# Quantiles are taken of this many tokens, evenly spread; their error is below 1 %.
_SAMPLED = 50_000
_FORMAT = 1
_KEY_LENGTH = 16
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


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


def ensure_moments(
    name: str,
    beside: FeatureSet,
    recipes: Sequence[str],
    slices: Sequence[StoredSlice],
    read: Callable[[int], np.ndarray],
) -> Moments:
    """What :func:`moments_of` finds, from a file where it was found before.

    A file that cannot be read is made anew, and one that cannot be written is left out.

    Args:
        name: Of the dataset.
        beside: The feature set that the file lies in.
        recipes: Hashes of the recipes of the tokens, one for each layer.
        slices: Whose tokens; they are keyed by their pixels and grids.
        read: The tokens of one of these by its position, ``(row, col, channel)``.

    Raises:
        StoreError: As :func:`moments_of`.
    """
    identity = [[item.pixel_sha256, *item.grid] for item in slices]
    key = json_sha256({"format": _FORMAT, "recipes": list(recipes), "slices": identity})
    path = beside.folder / MOMENTS_FOLDER / f"{key[:_KEY_LENGTH]}.npz"
    if path.is_file():
        # Nothing is lost with a damaged file: what it held can be found again.
        with suppress(RecordError):
            (kept,) = load_moments(path).values()
            # A dataset may have another name since.
            return replace(kept, name=name)
    found = moments_of(name, read, range(len(slices)))
    content = BytesIO()
    save_moments(content, [found])
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        atomic.write_bytes(path, content.getvalue(), durable=False)
    return found


def save_moments(path: Path | BytesIO, domains: Sequence[Moments]) -> None:
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
    except _DAMAGED as error:
        raise RecordError(
            f"{path} cannot be read ({error}); restore the record from a copy, or train again.",
            subject=path,
        ) from error


def _flat(tokens: Float[np.ndarray, "row col channel"]) -> Float64[np.ndarray, "token channel"]:
    return np.asarray(tokens, np.float64).reshape(-1, tokens.shape[-1])
