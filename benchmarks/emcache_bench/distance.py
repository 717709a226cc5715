"""The Frechet distance: by a matrix root of D x D, and by emcache."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgWarning, sqrtm

from emcache.gap.frechet import frechet_distance
from emcache_bench.ratio import Measurement, Target, of_rounds
from emcache_bench.setting import Setting
from emcache_bench.timing import Rounds, interleave, quotients

_SHAPE = (165, 20, 1024)
_TOLERANCE = 1e-6


def measure_frechet(setting: Setting) -> Iterator[Measurement]:
    """165 slices against 20, D = 1024: the study's own."""
    n_a, n_b, dim = _SHAPE
    random = np.random.default_rng(0)
    a, b = random.normal(size=(n_a, dim)), random.normal(0.1, 1, size=(n_b, dim))
    found: dict[str, float] = {}
    # A root takes seconds, and is not the faster for a round before; ours is.
    frechet_distance(a, b)
    times = interleave(
        {
            "sqrtm": lambda: found.update(sqrtm=_by_root(a, b)),
            "emcache": lambda: found.update(emcache=float(frechet_distance(a, b))),
        },
        Rounds(1, 1) if setting.quick else setting.rounds(),
        setting.device,
        warm_up=0,
    )
    # A root of a covariance without full rank is itself good to a few digits only.
    far = abs(found["sqrtm"] - found["emcache"]) / found["emcache"]
    yield of_rounds(
        "frechet",
        f"squared Frechet distance by sqrtm / by emcache, at {_SHAPE}",
        quotients(times["sqrtm"], times["emcache"]),
        Target(50.0, at_least=True),
        times,
        note="" if far < _TOLERANCE else f"the distances differ by {far:.2g} of their size",
        sound=far < _TOLERANCE,
    )


def _by_root(a: Float[np.ndarray, "n dim"], b: Float[np.ndarray, "m dim"]) -> float:
    covariances = np.cov(a.T), np.cov(b.T)
    with warnings.catch_warnings():
        # It says itself that it is not exact for matrices without full rank.
        warnings.simplefilter("ignore", LinAlgWarning)
        root = sqrtm(covariances[0] @ covariances[1])
    shift = a.mean(axis=0) - b.mean(axis=0)
    traces = sum(np.trace(covariance) for covariance in covariances)
    return float(shift @ shift + traces - 2 * np.trace(root).real)
