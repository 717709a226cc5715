"""Whether masks lie on their own images as they are: not moved, scaled, or with a border cut off.

Light changes across the outline of what is labelled, and mostly in one direction: mitochondria,
say, are dark at their rim. The *flux* of a mask is the image's gradient along the outline's normal,
added up over all outlines. Where masks lie right it is far from zero; elsewhere the signs cancel.
So it can be tried where masks would fit better. By the divergence theorem the flux is the sum of
the image's Laplacian over the mask's inside, so one Fourier transform tries every move of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used
from jaxtyping import Bool, Float, Float32, Int, UInt8
from PIL import Image

from emcache.auditing.pictures import small_size

EDGE = 512
"""Longest edge of what is compared, in pixels."""

MOST = 16
"""Slices that are looked at, at even distances."""

CLEAR = 8.0
"""Least peak of the flux, in standard deviations over all other moves, to say where masks lie."""

FITS = 0.85
"""Share of the best flux from which masks count as lying right."""

_COARSE = 256
"""As :data:`EDGE`, for the search over scales."""
_REACH = 1 / 8
"""Moves of up to so much of the longest edge are tried."""
_FARTHEST = 0.55
_SMALLEST = 32
_SMOOTH = 1.0
_PEAK = 12
"""A peak's surroundings in pixels, which say nothing of the noise."""
_SCALES = np.exp(np.log(1.04) * np.arange(-18, 19))
_AS_GOOD = 1.5
"""By how much a scale must fit better than none before it is believed, in standard deviations."""
_RIM = 0.1
_MARGINS = tuple(map(float, range(-8, 9)))
"""How far outlines may be drawn too wide or too narrow."""
_STEP = 3.0
_STARTS = (0.0, 6.0, -6.0)
"""Pixels at the edge by which masks are larger or smaller where the search for the best begins."""
_MOST_TRIES = 200
_MOST_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Placement:
    """Where masks fit their images best."""

    scale: tuple[float, float]
    """By which rows and columns of the masks would have to be scaled, about the centre."""
    move: tuple[float, float]
    """Pixels of the image, down and right, by which masks would have to be moved after that."""
    distance: float
    """Root mean square of the way of the masks' outlines, in pixels of the image."""
    clear: float
    """Flux at the best place, in standard deviations over all moves; below :data:`CLEAR` nothing
    can be said."""
    kept: float
    """Flux where the masks are, as a share of that at the best place; each with its best margin."""
    margin: float
    """Pixels by which the outlines lie outside of what they go around, all alike; negative inside.
    """
    kept_by_margin: float
    """Flux of the outlines as they are drawn, as a share of that with the best margin."""


@dataclass(frozen=True, slots=True)
class _Rim:
    """Outline of a mask, of several slices one behind the other."""

    slices: Int[np.ndarray, " point"]
    places: Float32[np.ndarray, "point 2"]
    normals: Float32[np.ndarray, "point 2"]
    length: float


class Alignment:
    """Some images with their masks, scaled down."""

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._images: list[Float32[np.ndarray, "row col"]] = []
        self._masks: list[Float32[np.ndarray, "row col"]] = []

    def add(
        self,
        pixels: UInt8[np.ndarray, "height width"],
        foreground: Bool[np.ndarray, "height width"],
    ) -> None:
        """Take one more slice."""
        small = _shrunk(pixels, EDGE)
        spread = float(small.std())
        if spread > 0:
            self._images.append((small - small.mean()) / np.float32(spread))
            self._masks.append(_shrunk(foreground.astype(np.uint8) * 255, EDGE) / np.float32(255))

    def place(self) -> Placement | None:
        """Where the masks fit best; None where there is nothing to compare."""
        if not self._images or min(self._images[0].shape) < _SMALLEST:
            return None
        images = np.stack([scipy.ndimage.gaussian_filter(image, _SMOOTH) for image in self._images])
        gradient = np.stack(np.gradient(images, axis=(1, 2)))
        gradient /= max(float(gradient.std()), 1e-9)
        rim = _rim(self._masks)
        if rim.length == 0:
            return None
        peak, move, noise = _best_move(images, self._masks)
        found = self._placed(gradient, rim, abs(peak) / noise, 1.0, move)
        right = found.kept >= FITS and found.margin == 0
        if found.clear < CLEAR or (found.clear < 2 * CLEAR and not right):
            best = self._search_scales()
            if best is not None and best[0] > found.clear + _AS_GOOD:
                found = self._placed(gradient, rim, *best)
        return found

    def _placed(
        self,
        gradient: Float32[np.ndarray, "2 slice row col"],
        rim: _Rim,
        clear: float,
        by: float,
        to: tuple[float, float],
    ) -> Placement:
        """The best placement close to a scale and a move."""
        scale, move = _refined(gradient, rim, by, to)
        # Outlines that are all too wide are not moved: a place is judged by its best margin.
        fluxes = {m: _flux(gradient, rim, (1.0, 1.0), (0.0, 0.0), m) for m in _MARGINS}
        best = max((_flux(gradient, rim, scale, move, m) for m in _MARGINS), key=abs)
        # On the other side of a membrane the gradient points the other way: that is not a fit.
        margin = max(_MARGINS, key=lambda m: fluxes[m] * best)
        ratio = self._size[0] / self._masks[0].shape[0]
        way = _moved(rim.places, self._masks[0].shape, scale, move) - rim.places
        return Placement(
            scale,
            (move[0] * ratio, move[1] * ratio),
            float(np.sqrt((way**2).sum(1).mean())) * ratio,
            clear,
            fluxes[margin] / best if best else 0.0,
            margin * ratio,
            fluxes[0] / fluxes[margin] if fluxes[margin] else 0.0,
        )

    def _search_scales(self) -> tuple[float, float, tuple[float, float]] | None:
        """How clear the best of many scales is, the scale and its move; None if it is too small."""
        rows, columns = small_size(*self._size, _COARSE)
        ratio = self._masks[0].shape[0] / rows
        if min(rows, columns) < _SMALLEST:
            return None
        images = np.stack([_resized(image, (rows, columns)) for image in self._images])
        images = np.stack([scipy.ndimage.gaussian_filter(image, _SMOOTH) for image in images])
        best = None
        for scale in _SCALES.tolist():
            masks = [
                _about_the_centre(_resized(mask, (rows, columns)), scale) for mask in self._masks
            ]
            # What was pasted into a corner has its centre elsewhere.
            peak, move, noise = _best_move(images, masks, _REACH + abs(scale - 1) / 2)
            if best is None or abs(peak) / noise > best[0]:
                best = abs(peak) / noise, scale, (move[0] * ratio, move[1] * ratio)
        return best


def _best_move(
    images: Float32[np.ndarray, "slice row col"],
    masks: Sequence[Float32[np.ndarray, "row col"]],
    share: float = _REACH,
) -> tuple[float, tuple[float, float], float]:
    """The largest flux over all moves, the move, and the standard deviation over all others."""
    height, width = images.shape[1:]
    down, right = (int(side * min(share, _FARTHEST)) for side in (height, width))
    shape = tuple(scipy.fft.next_fast_len(n, real=True) for n in (height + down, width + right))
    total = np.zeros((shape[0], shape[1] // 2 + 1), np.complex128)
    for image, mask in zip(images, masks, strict=True):
        total += scipy.fft.rfft2(scipy.ndimage.laplace(image), shape) * np.conj(
            scipy.fft.rfft2(mask, shape)
        )
    surface = np.roll(scipy.fft.irfft2(total, shape), (down, right), (0, 1))
    surface = surface[: 2 * down + 1, : 2 * right + 1]
    row, column = np.unravel_index(np.abs(surface).argmax(), surface.shape)
    around = min(_PEAK, down // 2, right // 2)
    elsewhere = np.ones(surface.shape, bool)
    elsewhere[
        max(row - around, 0) : row + around + 1, max(column - around, 0) : column + around + 1
    ] = False
    noise = max(float(surface[elsewhere].std()), 1e-9)
    return float(surface[row, column]), (float(row - down), float(column - right)), noise


def _rim(masks: Sequence[Float32[np.ndarray, "row col"]]) -> _Rim:
    slices, places, normals = [], [], []
    for number, mask in enumerate(masks):
        normal = np.stack(np.gradient(scipy.ndimage.gaussian_filter(mask, _SMOOTH)), axis=-1)
        points = np.argwhere(np.hypot(normal[..., 0], normal[..., 1]) > _RIM)
        slices.append(np.full(len(points), number))
        places.append(points.astype(np.float32))
        normals.append(normal[points[:, 0], points[:, 1]])
    every = slice(None, None, -(-sum(map(len, places)) // _MOST_POINTS) or 1)
    chosen = np.concatenate(normals)[every]
    length = float(np.hypot(chosen[:, 0], chosen[:, 1]).sum())
    return _Rim(np.concatenate(slices)[every], np.concatenate(places)[every], chosen, length)


def _moved(
    places: Float32[np.ndarray, "point 2"],
    shape: tuple[int, ...],
    scale: tuple[float, float],
    move: tuple[float, float],
) -> Float[np.ndarray, "point 2"]:
    centre = (np.array(shape) - 1) / 2
    moved: Float[np.ndarray, "point 2"] = (places - centre) * np.array(scale) + centre
    moved += np.array(move)
    return moved


def _flux(
    gradient: Float32[np.ndarray, "2 slice row col"],
    rim: _Rim,
    scale: tuple[float, float],
    move: tuple[float, float],
    margin: float = 0.0,
) -> float:
    """Mean gradient along the normals of a moved rim; outside of the image it is 0.

    Args:
        gradient: Of every image, down and right.
        rim: Of the masks.
        scale: Of rows and columns, about the centre.
        move: Down and right.
        margin: Pixels by which the rim is drawn inwards.
    """
    shape = gradient.shape[2:]
    places = _moved(rim.places, shape, scale, move)
    if margin:
        lengths = np.hypot(rim.normals[:, 0], rim.normals[:, 1])
        places += margin * rim.normals / lengths[:, None]
    rows, columns = np.rint(places).astype(np.int64).T
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    there = rim.slices[inside], rows[inside], columns[inside]
    total = sum((gradient[axis][there] * rim.normals[inside, axis]).sum() for axis in (0, 1))
    return float(total) / rim.length


def _refined(
    gradient: Float32[np.ndarray, "2 slice row col"],
    rim: _Rim,
    scale: float,
    move: tuple[float, float],
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The best scale and move close to these, rows and columns each for itself."""
    # In pixels at the edge, so that all four are of one kind.
    reach = max(gradient.shape[2:]) / 2
    sign = np.sign(_flux(gradient, rim, (scale, scale), move)) or 1.0

    def unpacked(x: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
        rows, columns = np.exp(x[:2] / reach).tolist()
        return (rows, columns), (float(x[2]), float(x[3]))

    def loss(x: np.ndarray) -> float:
        return float(-sign * _flux(gradient, rim, *unpacked(x)))

    middle = np.array([np.log(scale) * reach, np.log(scale) * reach, *move])
    steps = _STEP * np.eye(4)
    here = loss(middle)
    if all(loss(middle + step) > here for step in (*steps, *-steps)):
        # Worse on every side, as where masks lie right: the best is less than a step away.
        starts, steps = [middle], steps / _STEP
    else:
        # Each scale has a local optimum of its own.
        starts = [middle + place * np.array([1, 1, 0, 0]) for place in _STARTS]
    found = min(
        (
            scipy.optimize.minimize(
                loss,
                start,
                method="Nelder-Mead",
                options={
                    "initial_simplex": start + np.vstack([np.zeros(4), steps]),
                    "xatol": 0.1,
                    "fatol": 1e-3,
                    "maxfev": _MOST_TRIES,
                },
            )
            for start in starts
        ),
        key=lambda result: float(result.fun),
    )
    return unpacked(found.x)


def _about_the_centre(
    mask: Float32[np.ndarray, "row col"], scale: float
) -> Float32[np.ndarray, "row col"]:
    centre = (np.array(mask.shape) - 1) / 2
    scaled: Float32[np.ndarray, "row col"] = scipy.ndimage.affine_transform(
        mask, np.full(2, 1 / scale), offset=centre * (1 - 1 / scale), order=1
    )
    return scaled


def _shrunk(pixels: UInt8[np.ndarray, "height width"], edge: int) -> Float32[np.ndarray, "row col"]:
    return _resized(pixels.astype(np.float32), small_size(pixels.shape[0], pixels.shape[1], edge))


def _resized(
    picture: Float32[np.ndarray, "height width"], size: tuple[int, int]
) -> Float32[np.ndarray, "row col"]:
    image = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BOX)
    resized: Float32[np.ndarray, "row col"] = np.asarray(image)
    return resized
