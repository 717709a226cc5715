"""The pictures of docs/collapse.md.

::

    python benchmarks/collapse_pictures.py path/to/data docs/images

draws the charts from the files of benchmarks/collapse, and two slices of ``path/to/data/lucchi++``
with the outlines of their own masks and of those that string order gives them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from collapse_tables import FOLDER, LUCCHI, VNC, WRONG, pick, read_scores, test_of
from PIL import Image, ImageDraw, ImageFont

from emcache.data.images import outline_overlay
from emcache_warehouse.charts.render import save_chart
from emcache_warehouse.charts.theme import INK, PALETTE, ROWS, finished, panel_title

_ROWS = (
    ("Lucchi++ alone", LUCCHI, LUCCHI),
    ("VNC alone", VNC, LUCCHI),
    ("both, right pairs", "lucchi + vnc", LUCCHI),
    ("both, test masks in string order", "lucchi + vnc", WRONG),
    ("both, training masks in string order", "lucchi-wrong-train + vnc", LUCCHI),
    ("both, string order in training and test", "lucchi-wrong-train + vnc", WRONG),
)
_PAPER = {"Lucchi++": 0.007, "VNC": 0.661}
_SLICES = (8, 80)
_SHOWN = {
    "Frechet": "Frechet distance",
    "squared distance of the means, each channel scaled": "distance of the means, scaled",
    "kernel, Gaussian, each channel scaled": "Gaussian kernel, scaled",
    "probe, AUROC": "probe (AUROC)",
}
_KINDS = {"stack": "one stack", "tissue": "one tissue", "microscope": "two microscopes"}


def main(data: Path, images: Path) -> None:
    """Write the three pictures."""
    save_chart(_scores(), images / "collapse-scores.png")
    save_chart(_distances(), images / "collapse-distances.png")
    _outlines(data / "lucchi++").save(images / "collapse-outlines.png", optimize=True)


def _scores() -> alt.HConcatChart:
    scores, runs = read_scores(), pl.read_csv(FOLDER / "runs.csv")
    rows: list[dict[str, Any]] = []
    for panel in _PAPER:
        for words, train_on, tested in _ROWS:
            if panel == "VNC" and tested == WRONG:
                # The masks of VNC are the same in both.
                continue
            name = test_of(train_on, tested if panel == "Lucchi++" else VNC)
            cell = pick(scores, train_on, name)
            alike = runs.filter(
                pl.col(key) == cell[key]
                for key in ("regime", "weights", "longest_edge", "protocol", "train_on")
            ).filter(pl.col("eval_on") == name, pl.col("sampling") == "natural")
            interval = {"low": cell["low_over_seeds"], "high": cell["high_over_seeds"]}
            rows += [
                {"panel": panel, "trained": words, "iou": iou, **interval}
                for iou in alike["iou_fg"]
            ]
        rows.append({"panel": panel, "trained": "both, in the paper", "paper": _PAPER[panel]})
    order = [*(words for words, _, _ in _ROWS), "both, in the paper"]
    panels: list[alt.LayerChart] = []
    for panel, colour in zip(_PAPER, PALETTE, strict=False):
        base = alt.Chart(ROWS).transform_filter(alt.datum.panel == panel)
        # The panels have the same rows, also where one has no score in a row.
        y = alt.Y("trained:N", scale=alt.Scale(domain=order), title=None)
        if panels:
            y = y.axis(None)
        scale = alt.Scale(domain=[0, 0.8])
        bar = base.mark_rule(strokeWidth=5, opacity=0.3, color=colour).encode(
            x=alt.X("low:Q", scale=scale, title="foreground IoU"), x2="high:Q", y=y
        )
        seeds = base.mark_circle(size=45, color=colour, opacity=0.9).encode(x="iou:Q", y=y)
        paper = base.mark_tick(thickness=3, size=16, color=INK).encode(x="paper:Q", y=y)
        panels.append(
            alt.layer(bar, seeds, paper).properties(
                width=270, height=190, title=panel_title(f"tested on {panel}")
            )
        )
    lines = [
        "points: runs; bars: 95 % interval of their mean; black: the paper's DINOv2-L",
        "DINOv2 ViT-S/14 (probably fine-tuned for saliency), frozen, 266 px, 15 epochs",
    ]
    title = "One head for two microscopes, with masks beside their own slices and not"
    return finished(alt.hconcat(*panels, spacing=20), rows, title, lines)


def _distances() -> alt.HConcatChart:
    pairs = pl.read_csv(FOLDER / "distance-pairs.csv")
    rows = pairs.filter(pl.col("distance").is_in(list(_SHOWN))).with_columns(
        pl.col("kind").replace_strict(_KINDS)
    )
    panels: list[alt.Chart] = []
    for name, words in _SHOWN.items():
        y = alt.Y("kind:N", sort=list(_KINDS.values()), title=None)
        if panels:
            y = y.axis(None)
        panels.append(
            alt.Chart(ROWS)
            .transform_filter(alt.datum.distance == name)
            .transform_calculate(jitter="random()")
            .mark_circle(size=18, opacity=0.55)
            .encode(
                x=alt.X("value:Q", title=words, scale=alt.Scale(zero=False)).axis(tickCount=4),
                y=y,
                yOffset=alt.YOffset("jitter:Q"),
                color=alt.Color("kind:N", sort=list(_KINDS.values()), legend=None).scale(
                    domain=list(_KINDS.values()), range=list(PALETTE[:3])
                ),
            )
            .properties(width=165, height=170)
        )
    title = "Which distance tells two microscopes from two pieces of one stack?"
    lines = ["a point: two blocks of ten neighbouring slices; frozen backbone, 266 px"]
    return finished(alt.hconcat(*panels, spacing=14), rows.to_dicts(), title, lines)


def _outlines(root: Path) -> Image.Image:
    """Rows of slices: with their own mask, and with that of string order."""
    numbers = sorted(int(path.stem) for path in (root / "Train_Out").glob("*.png"))
    numbers = [number for number in numbers if number % 4 == 0]
    wrong = dict(zip(numbers, sorted(numbers, key=str), strict=True))
    side, gap, top = 440, 12, 34
    sheet = Image.new("RGB", (2 * side + gap, len(_SLICES) * (side * 3 // 4 + top)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for row, number in enumerate(_SLICES):
        slice_ = np.asarray(Image.open(root / f"Train_In/mask{number:04d}.png").convert("L"))
        for column, mask_number in enumerate((number, wrong[number])):
            mask = np.asarray(Image.open(root / f"Train_Out/{mask_number}.png").convert("L"))
            panel = Image.fromarray(outline_overlay(slice_, mask, None))
            left, upper = column * (side + gap), row * (side * 3 // 4 + top)
            words = "its own mask" if column == 0 else "the mask that string order gives it"
            draw.text(
                (left, upper + 8), f"mask{number:04d}.png, {words}: {mask_number}.png", INK, font
            )
            small = panel.resize((side, side * 3 // 4), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, upper + top))
    return sheet


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
