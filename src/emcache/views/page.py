"""One page that shows slices, their tokens, predictions and mistakes, without a network.

The page's program is written in ``src/explorer`` and bundled when the package is built. Numbers
travel as gzip in base64; a picture of a slice as WebP.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from sklearn.decomposition import PCA

from emcache._version import __version__
from emcache.storage import atomic
from emcache.training.counts import Counts
from emcache.views.collect import ShownSlice
from emcache.views.colours import pca_colours
from emcache.views.programs import read_static
from emcache.views.reduction import ReducedTokens, reduce_tokens
from emcache.views.umap_plane import umap_plane

_QUALITY = 80

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="emcache explore">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';
  style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<div id="app"><noscript>This page needs JavaScript.</noscript></div>
<script type="application/json" id="facts">{facts}</script>
{blobs}
<script>{script}</script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class PageOptions:
    """How the page is made."""

    title: str
    source: str | None
    """Of the tokens, in words."""
    notes: Sequence[str] = ()
    """Shown below the title."""
    components: int = 64
    """The most principal components of a token."""
    umap: bool = False
    """Whether tokens are placed by UMAP too."""


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """What was written."""

    path: Path
    size: int
    """In bytes."""
    reduced: ReducedTokens | None
    """The tokens as the page has them; None without any."""


def write_page(path: Path, slices: Sequence[ShownSlice], options: PageOptions) -> WrittenPage:
    """Write the page.

    Args:
        path: Where to; ``.html``.
        slices: What it shows.
        options: Title, notes, and how tokens are reduced.

    Raises:
        StoreError: A token has no length, or is not finite.
        EmcacheError: This installation lacks the page's program.
    """
    page, reduced = render_page(slices, options)
    atomic.write_bytes(path, page)
    return WrittenPage(path, len(page), reduced)


def render_page(
    slices: Sequence[ShownSlice], options: PageOptions
) -> tuple[bytes, ReducedTokens | None]:
    """The page, and its tokens as it has them; arguments and errors as of :func:`write_page`."""
    style, script = (read_static(f"explorer.{kind}") for kind in ("css", "js"))
    with_tokens = [item for item in slices if item.tokens is not None]
    grids = [item.tokens for item in with_tokens if item.tokens is not None]
    reduced = reduce_tokens(grids, options.components) if grids else None
    plane = np.zeros(0, np.float32)
    if options.umap and reduced is not None:
        plane = umap_plane(reduced.deviations())
    labels = _Labels()
    facts = _facts(slices, reduced, labels, options)
    blobs = {
        "tokens": np.zeros(0, np.int8) if reduced is None else reduced.coordinates,
        "along": np.zeros(0, np.float32) if reduced is None else reduced.along_mean,
        "colours": _colours(with_tokens),
        "pixels": _pixels(with_tokens),
        "labels": labels.all(),
        "plane": plane,
    }
    page = _PAGE.format(
        title=escape(options.title),
        style=style,
        # No text of the facts may end the element that holds it.
        facts=json.dumps(facts, allow_nan=False).replace("<", "\\u003c"),
        blobs="\n".join(_blob(name, values) for name, values in blobs.items()),
        script=script.replace("</script", "<\\/script"),
    ).encode()
    return page, reduced


class _Labels:
    """Masks and predictions, one after the other."""

    def __init__(self) -> None:
        self._parts: list[UInt8[np.ndarray, "row col"]] = []
        self._size = 0

    def add(self, labels: UInt8[np.ndarray, "row col"]) -> int:
        """Where it starts."""
        start = self._size
        self._parts.append(labels)
        self._size += labels.size
        return start

    def all(self) -> UInt8[np.ndarray, " pixel"]:
        """Of everything that was added."""
        return np.concatenate([np.zeros(0, np.uint8), *(part.ravel() for part in self._parts)])


def _facts(
    slices: Sequence[ShownSlice],
    reduced: ReducedTokens | None,
    labels: _Labels,
    options: PageOptions,
) -> dict[str, Any]:
    means, names = _plane(slices)
    facts: dict[str, Any] = {
        "title": options.title,
        "version": __version__,
        "source": options.source,
        "notes": list(options.notes),
        "components": 0,
        "scales": [],
        "meanSquare": 0,
        "explained": 0,
        "error": {"largest": 0, "typical": 0, "spread": 0},
        "planeNames": names,
        "runs": list(dict.fromkeys(p.run for item in slices for p in item.predictions)),
        "slices": [],
    }
    if reduced is not None:
        facts |= {
            "components": reduced.coordinates.shape[1],
            "scales": reduced.scales.tolist(),
            "meanSquare": reduced.mean_square,
            "explained": reduced.explained,
            "error": {
                "largest": reduced.error.largest,
                "typical": reduced.error.typical,
                "spread": reduced.error.spread,
            },
        }
    first = 0
    for item, mean in zip(slices, means, strict=True):
        grid = None if item.tokens is None else item.tokens.shape[:2]
        facts["slices"].append(
            {
                "dataset": item.selection,
                "id": item.item.id,
                "split": item.item.split,
                "size": item.item.size,
                "shown": item.image.shape,
                "picture": picture_address(item.image),
                "grid": grid,
                "first": first,
                "labels": None if item.labels is None else labels.add(item.labels),
                "predictions": [
                    {
                        "run": found.run,
                        "labels": labels.add(found.labels),
                        "iou": None if found.counts is None else found.counts.iou,
                        "dice": None if found.counts is None else _dice(found.counts),
                    }
                    for found in item.predictions
                ],
                "plane": mean,
            }
        )
        first += 0 if grid is None else grid[0] * grid[1]
    return facts


def _dice(counts: Counts) -> float:
    whole = 2 * counts.tp + counts.fp + counts.fn
    return 2 * counts.tp / whole if whole else 0.0


def _plane(slices: Sequence[ShownSlice]) -> tuple[list[list[float] | None], list[str]]:
    """Slices in the plane of the first two principal components of their mean tokens."""
    known = [place for place, item in enumerate(slices) if item.tokens is not None]
    places: list[list[float] | None] = [None] * len(slices)
    if len(known) < 2:
        return [[0.0, 0.0] if place in known else None for place in range(len(slices))], ["", ""]
    means: Float32[np.ndarray, "slice channel"] = np.stack(
        [tokens.mean(axis=(0, 1)) for item in slices if (tokens := item.tokens) is not None]
    )
    pca = PCA(min(2, *means.shape), svd_solver="full")
    points = pca.fit_transform(means)
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    for place, point in zip(known, points, strict=True):
        places[place] = [float(point[0]), float(point[1]) if len(point) > 1 else 0.0]
    names = [f"component {i} ({share:.0%} of their variance)" for i, share in enumerate(shares, 1)]
    return places, [*names, ""][:2]


def _colours(slices: Sequence[ShownSlice]) -> UInt8[np.ndarray, " value"]:
    """Of all tokens by one basis, then by a basis for each selection."""
    grids = [item.tokens for item in slices if item.tokens is not None]
    if not grids:
        return np.zeros(0, np.uint8)
    own: dict[int, UInt8[np.ndarray, "row col 3"]] = {}
    for name in dict.fromkeys(item.selection for item in slices):
        places = [place for place, item in enumerate(slices) if item.selection == name]
        own |= dict(zip(places, pca_colours([grids[place] for place in places]), strict=True))
    parts = [*pca_colours(grids), *(own[place] for place in range(len(grids)))]
    return np.concatenate([part.ravel() for part in parts])


def _pixels(slices: Sequence[ShownSlice]) -> np.ndarray:
    parts = [np.zeros((0, 2), np.uint32)]
    for item in slices:
        assert item.tokens is not None  # noqa: S101 - those with tokens
        count = item.tokens.shape[0] * item.tokens.shape[1]
        pixels = np.zeros((count, 2)) if item.token_pixels is None else item.token_pixels
        parts.append(pixels.astype(np.uint32))
    return np.concatenate(parts)


def picture_address(image: UInt8[np.ndarray, "row col ..."]) -> str:
    """A picture as an address that holds it, in WebP."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=_QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _blob(name: str, values: np.ndarray) -> str:
    little = values.astype(values.dtype.newbyteorder("<"))
    # Without a time, so that the same data give the same page.
    packed = base64.b64encode(gzip.compress(little.tobytes(), 9, mtime=0)).decode()
    return f'<script type="application/octet-stream" id="blob-{name}">{packed}</script>'
