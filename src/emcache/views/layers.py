"""What napari shows: arrays with what it is told about each; napari itself is not needed for that.

Axes are slice, row, column. Units are nanometres where the voxel size is known, else pixels. Tokens
lie where their patches do: napari puts the middle of the first pixel at 0, so a token that is ``n``
pixels wide begins ``(n - 1) / 2`` pixels further on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emcache.views.collect import ShownSlice
from emcache.views.colours import pca_colours

Layer = tuple[np.ndarray, dict[str, Any], str]
"""Values, what is said of them, and the kind of layer: ``image`` or ``labels``."""


def layers_of(slices: Sequence[ShownSlice]) -> list[Layer]:
    """Layers of slices: image, mask, predictions, probabilities and token colours.

    Slices of one dataset and size make one stack; others follow as stacks of their own.

    Args:
        slices: In the order of the stack.
    """
    stacks: dict[tuple[str, tuple[int, ...]], list[ShownSlice]] = {}
    for item in slices:
        stacks.setdefault((item.selection, item.image.shape), []).append(item)
    return [layer for (name, _), stack in stacks.items() for layer in _stack(name, stack)]


def token_layer(
    name: str, grids: Sequence[Float[np.ndarray, "_ _ channel"]], pitch: tuple[float, float]
) -> Layer:
    """Tokens as colours by their principal components, one basis for all.

    Args:
        name: Of the layer.
        grids: Tokens of each slice, of one size.
        pitch: Rows and columns of pixels, or nanometres, that a token covers.
    """
    colours = np.stack(pca_colours(grids))
    return colours, {"name": name, "rgb": True, "scale": (1.0, *pitch)}, "image"


def _stack(name: str, stack: Sequence[ShownSlice]) -> list[Layer]:
    first = stack[0]
    rows, columns = first.image.shape
    # A pixel of the shown picture, in nanometres or in pixels of the slice.
    nm = first.pixel_nm or (1.0, 1.0)
    pixel = (nm[0] * first.item.height / rows, nm[1] * first.item.width / columns)
    scale = (1.0, *pixel)
    units = ("pixel", *(("nm", "nm") if first.pixel_nm is not None else ("pixel", "pixel")))
    common: dict[str, Any] = {
        "scale": scale,
        "units": units,
        "metadata": {"slices": [item.item.id for item in stack]},
    }
    layers: list[Layer] = [
        (np.stack([item.image for item in stack]), {"name": name, **common}, "image")
    ]
    tokens = [item.tokens for item in stack if item.tokens is not None]
    if len(tokens) == len(stack):
        grid = tokens[0].shape[:2]
        pitch = (pixel[0] * rows / grid[0], pixel[1] * columns / grid[1])
        values, about, kind = token_layer(f"{name}: tokens", tokens, pitch)
        shift = (0.0, *((p - q) / 2 for p, q in zip(pitch, pixel, strict=True)))
        about |= {**common, "scale": about["scale"], "translate": shift, "visible": False}
        layers.append((values, about, kind))
    if any(item.labels is not None for item in stack):
        empty = np.zeros((rows, columns), np.uint8)
        masks = [empty if item.labels is None else item.labels for item in stack]
        layers.append((np.stack(masks), {"name": f"{name}: mask", **common}, "labels"))
    for place, prediction in enumerate(stack[0].predictions):
        found = [item.predictions[place] for item in stack]
        probability = np.stack([item.probability for item in found])
        shown = {"colormap": "magma", "contrast_limits": (0.0, 1.0), "visible": False}
        layers += [
            (
                probability,
                {"name": f"{name}: probability, {prediction.run}", **shown, **common},
                "image",
            ),
            (
                np.stack([item.labels for item in found]),
                {"name": f"{name}: {prediction.run}", **common},
                "labels",
            ),
        ]
    return layers
