"""How tokens are stored: as they are, in 8 bits, or as principal components.

What is smaller than float16 is made of the tokens rounded to float16, so that it is the same
whether a backbone or an older feature set gave them. Reading gives float16 again.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Shaped

from emcache.errors import RecordError, StoreError
from emcache.storage import atomic

TokenType = Literal["float16", "float32", "int8"]
"""What tokens can be stored as."""

BASIS_FILE = "basis.npz"
"""File of a feature set, and of a run's record, that holds the basis of principal components."""
SCALES = ("scale", "offset")
"""Arrays that stand beside tokens in 8 bits: for each slice and channel."""

_MOST_CODE = 127
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Basis:
    """Principal components of tokens (Jolliffe, Principal Component Analysis, 2002)."""

    mean: Float32[np.ndarray, " channel"]
    components: Float32[np.ndarray, "component channel"]
    """Orthonormal, the one of the largest variance first."""
    explained: float
    """Share of the variance of the tokens that it was fitted to."""

    @cached_property
    def sha256(self) -> str:
        """Hash of its numbers."""
        return hashlib.sha256(self.mean.tobytes() + self.components.tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Write it."""
        buffer = io.BytesIO()
        explained = np.float64(self.explained)
        np.savez(buffer, mean=self.mean, components=self.components, explained=explained)
        atomic.write_bytes(path, buffer.getvalue())


def load_basis(path: Path) -> Basis:
    """Read what :meth:`Basis.save` wrote.

    Raises:
        RecordError: It cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Basis(
                np.asarray(stored["mean"], np.float32),
                np.asarray(stored["components"], np.float32),
                float(stored["explained"]),
            )
    except _UNREADABLE as error:
        raise RecordError(
            f"{path} holds no basis of principal components ({type(error).__name__}); restore it "
            f"from a copy, or convert and train again.",
            subject=path,
        ) from error


def fit_basis(tokens: Iterable[Float[np.ndarray, "row col channel"]], count: int) -> Basis:
    """The first principal components of all tokens of some slices.

    Args:
        tokens: Of each slice; one or more.
        count: How many components, at most as many as there are channels.

    Raises:
        StoreError: There are no such tokens, or fewer channels than that.
    """
    total, mean, products = 0, np.zeros(0), np.zeros((0, 0))
    for grid in tokens:
        flat = grid.reshape(-1, grid.shape[-1]).astype(np.float64)
        if not total:
            mean, products = np.zeros(flat.shape[1]), np.zeros((flat.shape[1],) * 2)
        # Sums about the running mean: tokens may lie far from zero and close to each other.
        own = flat.mean(axis=0)
        centred = flat - own
        share = total * len(flat) / (total + len(flat))
        products += centred.T @ centred + share * np.outer(own - mean, own - mean)
        mean = (total * mean + len(flat) * own) / (total + len(flat))
        total += len(flat)
    if not total or not 1 <= count <= len(mean):
        raise StoreError(
            f"{count} principal components were asked for, of {total} tokens of {len(mean)} "
            f"channels; expected no more components than channels.",
            subject=count,
        )
    values, vectors = np.linalg.eigh(products)
    chosen = vectors[:, ::-1][:, :count]
    # Of either direction, the one whose largest entry is positive: solvers differ.
    largest = chosen[np.abs(chosen).argmax(axis=0), np.arange(count)]
    chosen = chosen * np.where(largest < 0, -1, 1)
    explained = float(values[::-1][:count].sum() / max(values.sum(), np.finfo(float).tiny))
    return Basis(mean.astype(np.float32), chosen.T.astype(np.float32), explained)


class Stored(NamedTuple):
    """Tokens of some slices as they are stored."""

    values: Shaped[np.ndarray, "slice row col channel"]
    scales: Mapping[str, Float32[np.ndarray, "slice channel"]]
    """Of tokens in 8 bits (:data:`SCALES`)."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How tokens are stored."""

    dtype: TokenType
    basis: Basis | None = None
    """Of principal components; None for the backbone's own channels."""

    @property
    def is_plain(self) -> bool:
        """Whether tokens are stored as they are, rounded at most."""
        return self.basis is None and self.dtype != "int8"

    @property
    def read_type(self) -> np.dtype[Any]:
        """Type of the tokens that reading gives."""
        return np.dtype("float32" if self.dtype == "float32" and self.is_plain else "float16")

    def encode(self, tokens: Float[np.ndarray, "slice row col channel"]) -> Stored:
        """Tokens as they are stored.

        In 8 bits every channel of a slice has 255 steps of equal size from its least to its largest
        value, so a value is off by half a step at most.
        """
        if self.is_plain:
            return Stored(tokens.astype(self.dtype), {})
        values: Float32[np.ndarray, "slice row col channel"]
        values = tokens.astype(np.float16).astype(np.float32)
        if self.basis is not None:
            values = (values - self.basis.mean) @ self.basis.components.T
        if self.dtype != "int8":
            return Stored(values.astype(self.dtype), {})
        low, high = values.min(axis=(1, 2)), values.max(axis=(1, 2))
        offset = low + (high - low) / 2
        scale = (high - low) / (2 * _MOST_CODE)
        scale[scale == 0] = 1  # a channel that is the same everywhere
        codes = np.rint((values - offset[:, None, None]) / scale[:, None, None])
        codes = codes.clip(-_MOST_CODE, _MOST_CODE).astype(np.int8)
        return Stored(codes, {"scale": scale, "offset": offset})

    def decode(self, stored: Stored) -> Float[np.ndarray, "slice row col channel"]:
        """The tokens again, in :attr:`read_type`."""
        if self.is_plain:
            return stored.values
        values = stored.values.astype(np.float32)
        if self.dtype == "int8":
            scale, offset = (stored.scales[name][:, None, None] for name in SCALES)
            values = values * scale + offset
        if self.basis is not None:
            values = values @ self.basis.components + self.basis.mean
        return values.astype(self.read_type)

    def round_trip(
        self, tokens: Float[np.ndarray, "slice row col channel"]
    ) -> Float[np.ndarray, "slice row col channel"]:
        """What reading gives of tokens that were stored."""
        return self.decode(self.encode(tokens))
