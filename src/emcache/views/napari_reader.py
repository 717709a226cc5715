"""The reader for napari: feature sets as token colours, and folders of ``emcache predict``.

OME-Zarr, which ``emcache predict --ome-zarr`` writes, is read by another plugin of napari. Nothing
here needs napari, or PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from emcache.cache.feature_set import FeatureSet
from emcache.data.plane import natural_key
from emcache.storage.manifest import MANIFEST_NAME
from emcache.views.colours import ColourBasis

Layer = tuple[Any, dict[str, Any], str]
Reader = Callable[[str | Sequence[str]], list[Layer]]

_MASK_FOLDERS = ("overlays", "probabilities")
_PICTURES = (".png", ".tif", ".tiff")
_FITTED = 32
"""Slices that a basis of colours is fitted to."""


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """What reads a path that was dropped on napari.

    Args:
        path: What was dropped; of several only one is read.

    Returns:
        What reads it; None for what is another plugin's.
    """
    if not isinstance(path, str):
        return None
    folder = Path(path)
    if (folder / MANIFEST_NAME).is_file() and (folder / "grids").is_dir():
        return _read_feature_set
    if any((folder / name).is_dir() for name in _MASK_FOLDERS):
        return _read_predictions
    return None


class LazyColours:
    """Token colours of slices, computed when they are looked at, as napari reads arrays."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, feature_set: FeatureSet, positions: Sequence[int], basis: ColourBasis
    ) -> None:
        self._feature_set = feature_set
        self._positions = list(positions)
        self._basis = basis
        self.shape = (len(positions), *feature_set.slices[positions[0]].grid, 3)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), []
        chosen = np.arange(len(self))[first]
        colours = np.stack([self._colours(int(place)) for place in np.atleast_1d(chosen)])
        whole = colours[0] if np.ndim(chosen) == 0 else colours
        before = () if np.ndim(chosen) == 0 else (slice(None),)
        values: np.ndarray = whole[(*before, *rest)]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def _colours(self, place: int) -> np.ndarray:
        return self._basis.colours(self._feature_set.tokens(self._positions[place]))


def _read_feature_set(path: str | Sequence[str]) -> list[Layer]:
    """One layer for each grid shape; a step along the first axis is a slice."""
    feature_set = FeatureSet.open(str(path))
    shift = int(feature_set.description.get("shift", 1))
    pitch = feature_set.description["patch"] / shift
    by_grid: dict[tuple[int, int], list[int]] = {}
    for position, item in enumerate(feature_set.slices):
        by_grid.setdefault(item.grid, []).append(position)
    few = np.linspace(0, len(feature_set) - 1, min(_FITTED, len(feature_set))).astype(int)
    basis = ColourBasis.fit([feature_set.tokens(int(position)) for position in few])
    layers: list[Layer] = []
    for grid, positions in by_grid.items():
        about = {
            "name": f"{feature_set.name} {grid[0]} x {grid[1]}",
            "rgb": True,
            "scale": (1.0, pitch, pitch),
            "metadata": {"slices": [feature_set.slices[position].id for position in positions]},
        }
        layers.append((LazyColours(feature_set, positions, basis), about, "image"))
    return layers


def _read_predictions(path: str | Sequence[str]) -> list[Layer]:
    """Masks as labels, and probabilities where they were written."""
    folder = Path(str(path))
    layers: list[Layer] = []
    for kind, where in (("labels", folder), ("image", folder / "probabilities")):
        files = [path for path in where.glob("*") if path.suffix.lower() in _PICTURES]
        for file in sorted(files, key=lambda path: natural_key(path.name)):
            about: dict[str, Any] = {"name": file.stem if kind == "labels" else f"{file.stem}: p"}
            if kind == "image":
                about |= {"colormap": "magma", "contrast_limits": (0.0, 1.0), "visible": False}
            layers.append((_values(file), about, kind))
    return layers


def _values(file: Path) -> np.ndarray:
    if file.suffix.lower() == ".png":
        with Image.open(file) as picture:
            return np.asarray(picture)
    # All pages of a stack; of a file with smaller copies the full size.
    return np.asarray(tifffile.imread(file))
