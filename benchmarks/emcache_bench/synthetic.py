"""Made-up EM-like slices with exact masks, for trying things out where no real data are.

A *domain* is a stack of neighbouring slices: a mesh of dark membranes and ellipse-like organelles
with striped insides drift from slice to slice. Two domains differ in texture, contrast, sharpness
and noise, as two microscopes do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter


@dataclass(frozen=True, slots=True)
class Style:
    """What tells one domain from another."""

    cytoplasm: float
    """Mean grey of the background, 0..1."""
    membrane: float
    """How much darker membranes are."""
    organelle: float
    """How much darker organelles are."""
    texture: float
    """Scale of the membranes' mesh in pixels."""
    blur: float
    """Standard deviation of the microscope's blur in pixels."""
    noise: float
    """Standard deviation of the noise in grey, 0..1."""


STYLES = {
    "sharp": Style(0.72, 0.30, 0.28, texture=9.0, blur=0.8, noise=0.05),
    "soft": Style(0.50, 0.16, 0.22, texture=15.0, blur=2.0, noise=0.11),
}
"""The demo's two domains."""

_ORGANELLES = 9
_DRIFT = 3.0
_STRIPE = 5.0


def write_domain(folder: Path, style: Style, slices: int, size: int, seed: int) -> None:
    """Write ``images/NN.png`` and ``masks/NN.png`` (0 and 255), ``size`` x ``size`` pixels.

    Args:
        folder: Where; made if need be.
        style: The look.
        slices: How many neighbouring slices.
        size: Rows and columns.
        seed: Of everything random.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    digits = len(str(slices - 1))
    random = np.random.default_rng(seed)
    volume = gaussian_filter(
        random.standard_normal((slices, size, size)), (2.0, style.texture, style.texture)
    )
    centres = random.uniform(0, size, (_ORGANELLES, 2))
    drifts = random.normal(0, _DRIFT, (_ORGANELLES, 2))
    radii = random.uniform(size / 22, size / 9, (_ORGANELLES, 2))
    turns = random.uniform(0, np.pi, _ORGANELLES)
    for z in range(slices):
        mask, stripes = _organelles(size, centres + z * drifts, radii, turns)
        image = _image(style, volume[z], mask, stripes, random)
        for name, pixels in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
            Image.fromarray(pixels).save(folder / name / f"{z:0{digits}d}.png")


def draw_section(
    style: Style, size: int, seed: int
) -> tuple[UInt8[np.ndarray, "row col"], UInt8[np.ndarray, "row col"]]:
    """A slice by itself and its mask (0 and 255), with organelles of the usual size in pixels.

    Args:
        style: The look.
        size: Rows and columns.
        seed: Of everything random.
    """
    random = np.random.default_rng(seed)
    mesh = gaussian_filter(random.standard_normal((size, size)), style.texture)
    centres = random.uniform(0, size, (_ORGANELLES, 2))
    radii = random.uniform(16, 60, (_ORGANELLES, 2))
    mask, stripes = _organelles(size, centres, radii, random.uniform(0, np.pi, _ORGANELLES))
    return _image(style, mesh, mask, stripes, random), mask.astype(np.uint8) * 255


def _organelles(
    size: int,
    centres: Float[np.ndarray, "organelle 2"],
    radii: Float[np.ndarray, "organelle 2"],
    turns: Float[np.ndarray, " organelle"],
) -> tuple[Bool[np.ndarray, "row col"], Float[np.ndarray, "row col"]]:
    """Where organelles are, and the stripes (cristae) inside, in -1..1."""
    rows, columns = np.mgrid[:size, :size].astype(float)
    mask = np.zeros((size, size), dtype=bool)
    stripes = np.zeros((size, size))
    for (row, column), (long, short), turn in zip(centres % size, radii, turns, strict=True):
        along = (rows - row) * np.cos(turn) + (columns - column) * np.sin(turn)
        across = (columns - column) * np.cos(turn) - (rows - row) * np.sin(turn)
        inside = (along / long) ** 2 + (across / short) ** 2 <= 1
        mask |= inside
        stripes[inside] = np.sin(2 * np.pi * along[inside] / _STRIPE)
    return mask, stripes


def _image(
    style: Style,
    mesh: Float[np.ndarray, "row col"],
    mask: Bool[np.ndarray, "row col"],
    stripes: Float[np.ndarray, "row col"],
    random: np.random.Generator,
) -> UInt8[np.ndarray, "row col"]:
    # Zero crossings of a smooth field make closed, thin, branching lines: membranes.
    membrane = np.exp(-((mesh / (0.12 * mesh.std())) ** 2))
    grey = np.full(mesh.shape, style.cytoplasm)
    grey -= style.membrane * np.where(mask, 0, membrane)
    grey -= np.where(mask, style.organelle * (1 + 0.25 * stripes), 0)
    grey = gaussian_filter(grey, style.blur)
    grey += gaussian_filter(random.normal(0, style.noise, mesh.shape), 0.6)
    pixels: UInt8[np.ndarray, "row col"] = (np.clip(grey, 0, 1) * 255).astype(np.uint8)
    return pixels
