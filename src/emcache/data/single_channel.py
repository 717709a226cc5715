"""One grey from a plane in colour: data sets are published as RGB and RGBA that say nothing more.

Nothing is averaged and nothing left out. Where the channels disagree, no single one of them can be
called the grey, and where alpha varies, it says something that would be lost.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Shaped

from emcache.data.plane import Plane
from emcache.errors import ImageError


def single_channel(
    values: Shaped[np.ndarray, "row col channel"], plane: Plane, name: str, what_to_do: str
) -> Shaped[np.ndarray, "row col"]:
    """The grey that all colours of a plane agree on.

    Args:
        values: One or three colours; of two or four channels the last is alpha.
        plane: Where they are from.
        name: What to call it in errors.
        what_to_do: The advice at the end of an error.

    Raises:
        ImageError: Colours differ, or alpha does; the first such pixel is named with its values.
    """
    channels = values.shape[-1]
    colours = values[..., : channels - (channels in (2, 4))]
    differing = (colours != colours[..., :1]).any(axis=-1)
    if differing.any():
        row, column, many = _first(differing)
        shown = ", ".join(str(value) for value in colours[row, column].tolist())
        raise ImageError(
            f"{name} is a colour image: its channels differ in {many}, first in row {row}, column "
            f"{column} ({shown}); expected the same value in each: {what_to_do}.",
            subject=plane.path,
        )
    if colours.shape[-1] < channels:
        _check_alpha(values[..., -1], plane, name, what_to_do)
    return np.ascontiguousarray(colours[..., 0])


def _check_alpha(
    alpha: Shaped[np.ndarray, "row col"], plane: Plane, name: str, what_to_do: str
) -> None:
    if (alpha == alpha[0, 0]).all():
        return
    found, counts = np.unique(alpha, return_counts=True)
    usual = found[counts.argmax()]
    row, column, many = _first(alpha != usual)
    raise ImageError(
        f"the alpha of {name} varies: it is {alpha[row, column]} in row {row}, column {column}, "
        f"and {usual} in most pixels ({many} differ from that); expected the same everywhere, "
        f"since a grey has no alpha: {what_to_do}.",
        subject=plane.path,
    )


def _first(marked: Bool[np.ndarray, "row col"]) -> tuple[int, int, str]:
    """Row and column of the first marked pixel, and how many there are in words."""
    row, column = divmod(int(marked.argmax()), marked.shape[1])
    return row, column, f"{int(marked.sum())} of {marked.size} pixels"
