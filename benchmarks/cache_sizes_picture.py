"""The picture of docs/smaller.md: what smaller caches cost, against their bytes.

python benchmarks/cache_sizes_picture.py
"""

from __future__ import annotations

from pathlib import Path

import altair as alt
import polars as pl

from emcache_warehouse.charts import theme
from emcache_warehouse.charts.render import save_chart

HERE = Path(__file__).parent
NAMES = {"vnc": "VNC", "lucchi": "Lucchi++"}
_WIDTH, _HEIGHT = 250, 220


def points() -> pl.DataFrame:
    """A row for each way, dataset and quantity, with the share of the bytes of float16."""
    tokens = pl.read_csv(HERE / "cache_sizes_tokens.csv").filter(pl.col("bytes_vnc").is_not_null())
    plain = tokens.filter(way="float16").row(0, named=True)
    scores = pl.read_csv(HERE / "cache_sizes.csv").filter(head="linear")
    means = scores.group_by("way", "dataset").agg(pl.col("iou_fg").mean())
    rows = []
    for row in tokens.iter_rows(named=True):
        for name, title in NAMES.items():
            (iou,) = means.filter(way=row["way"], dataset=name)["iou_fg"]
            facts = {"way": row["way"], "dataset": title, "stored": _kind(row["way"])}
            facts["share"] = row[f"bytes_{name}"] / plain[f"bytes_{name}"]
            rows += [
                {**facts, "quantity": "IoU", "value": iou},
                {**facts, "quantity": "neighbours", "value": row[f"same_neighbour_{name}"]},
            ]
        facts = {"way": row["way"], "dataset": "both", "stored": _kind(row["way"])}
        share = (row["bytes_vnc"] + row["bytes_lucchi"]) / (
            plain["bytes_vnc"] + plain["bytes_lucchi"]
        )
        distance = row["frechet"] / plain["frechet"]
        rows.append({**facts, "share": share, "quantity": "distance", "value": distance})
    return pl.DataFrame(rows)


def _kind(way: str) -> str:
    return "float16" if way.endswith("float16") else "8 bits"


def _panel(quantity: str, title: str) -> alt.LayerChart:
    base = (
        alt.Chart(theme.ROWS)
        .transform_filter(alt.FieldEqualPredicate(field="quantity", equal=quantity))
        .encode(
            x=alt.X(
                "share:Q",
                title="bytes, as a share of float16",
                scale=alt.Scale(type="log", domain=[0.03, 1.2]),
                axis=alt.Axis(values=[0.05, 0.1, 0.2, 0.5, 1], format="~p"),
            ),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, nice=True, padding=10)),
            color=alt.Color(
                "dataset:N",
                title=None,
                scale=alt.Scale(
                    domain=[*NAMES.values(), "both"],
                    range=[theme.PALETTE[0], theme.PALETTE[1], theme.GREYS["macro"]],
                ),
            ),
            shape=alt.Shape(
                "stored:N",
                title=None,
                scale=alt.Scale(domain=["float16", "8 bits"], range=["circle", "triangle-up"]),
            ),
        )
    )
    dots = base.mark_point(filled=True, size=80, opacity=1)
    lines = base.mark_line(strokeWidth=1, opacity=0.6).encode(detail="stored:N")
    return alt.layer(lines, dots).properties(width=_WIDTH, height=_HEIGHT)


def main() -> None:
    """Draw it."""
    chart = alt.hconcat(
        _panel("IoU", "foreground IoU of a linear head"),
        _panel("neighbours", "nearest neighbours that stay the same"),
        _panel("distance", "distance of the datasets, as a share"),
        spacing=28,
    )
    whole = theme.finished(
        chart,
        points().to_dicts(),
        "What smaller caches cost",
        [
            theme.SEPARATOR.join(
                [
                    "each line from right to left: all 384 channels, then 128, 64, 32 and 16 "
                    "principal components",
                    "DINOv2 ViT-S/14 (a checkpoint), 266 px",
                    "means of 3 seeds",
                ]
            )
        ],
        width=3 * (_WIDTH + 40.0),
    )
    save_chart(whole, HERE.parent / "docs" / "images" / "smaller.png")


if __name__ == "__main__":
    main()
