"""The picture of docs/audit.md: a slice in two halves, and what each half says of 20 slices.

::

    python benchmarks/audit_picture.py path/to/data docs/images/audit-halves.png

``path/to/data`` holds ``lucchi++``, whose first 20 slices are compared, masks in string order. The
slice that shows the tiles is made up.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

import altair as alt
import numpy as np
import polars as pl
from audit_table import Chosen, read_lucchi
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

from emcache.auditing.evidence import compare_halves
from emcache.auditing.scratch import AS_THEY_ARE
from emcache.data.images import outline_overlay

_COUNT, _SIDE = 20, 300
_TILE = 16


def main(root: Path, out: Path) -> None:
    """Write the picture."""
    stack = read_lucchi(root, last=_COUNT)
    order = sorted(range(_COUNT), key=str)
    chosen = Chosen(stack, range(_COUNT), order, AS_THEY_ARE)
    places = range(_COUNT)
    halves = compare_halves(chosen.scores(places, places), chosen.typical(places))
    panels: list[alt.Chart | alt.LayerChart] = [_slice()]
    for half, name in enumerate(("white tiles", "shaded tiles")):
        rows = pl.DataFrame(
            {
                "image": np.repeat(np.arange(_COUNT), _COUNT),
                "mask": np.tile([str(n) for n in order], _COUNT),
                "fit": halves.scores[half].ravel(),
                "chosen": (halves.choices[half][:, None] == np.arange(_COUNT)).ravel(),
            }
        )
        panels.append(_matrix(rows, [str(n) for n in order], f"What the {name} say"))
    title = alt.TitleParams(
        "Each half of the tiles pairs masks with images by itself",
        subtitle="Lucchi++, 20 neighbouring slices, masks in string order: both halves find the "
        "same mask for every image, and the true one",
        anchor="start",
        fontSize=16,
        subtitleColor="#555",
        offset=14,
    )
    alt.hconcat(*panels, spacing=30).properties(title=title).configure_view(stroke=None).save(
        str(out), scale_factor=2
    )


def _slice() -> alt.Chart:
    with tempfile.TemporaryDirectory() as folder:
        write_domain(Path(folder), STYLES["sharp"], slices=2, size=256, seed=5)
        image = np.asarray(Image.open(Path(folder) / "images" / "0.png"))
        mask = np.asarray(Image.open(Path(folder) / "masks" / "0.png"))
    rows, columns = np.indices(image.shape) // _TILE
    light = np.where((rows + columns) % 2 == 0, image, image * 0.55).astype(np.uint8)
    picture = io.BytesIO()
    Image.fromarray(outline_overlay(light, mask, None)).save(picture, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=[{"url": url}]))
        .mark_image(width=_SIDE, height=_SIDE)
        .encode(url="url:N", x=alt.value(_SIDE / 2), y=alt.value(_SIDE / 2))
        .properties(width=_SIDE, height=_SIDE, title="A made-up slice, its mask, the two halves")
    )
    return chart


def _matrix(rows: pl.DataFrame, masks: list[str], title: str) -> alt.LayerChart:
    base = alt.Chart(alt.InlineData(values=rows.to_dicts())).encode(
        x=alt.X("mask:N", sort=masks, title="mask, as declared", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("image:O", title="image"),
    )
    scale = alt.Scale(scheme="blues", domain=[0, float(rows["fit"].max())], clamp=True)  # type: ignore[arg-type]
    cells = base.mark_rect().encode(color=alt.Color("fit:Q", scale=scale, legend=None))
    circles = base.transform_filter("datum.chosen").mark_point(
        shape="circle", color="black", size=60, opacity=1
    )
    chart: alt.LayerChart = alt.layer(cells, circles).properties(
        width=_SIDE, height=_SIDE, title=title
    )
    return chart


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
