"""The picture of docs/methods.md, from the rows of methods.csv and the published figures.

python benchmarks/methods_picture.py
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

import emcache_warehouse
from emcache_warehouse.charts.methods import methods_chart
from emcache_warehouse.charts.render import save_chart

HERE = Path(__file__).parent
SEEDS = Path(emcache_warehouse.__file__).parent / "seeds"
_NAMES = {"vnc": "vnc", "lucchi++": "lucchi"}


def published() -> pl.DataFrame:
    """Published figures as the named query ``methods`` has them."""
    literature = pl.read_csv(SEEDS / "literature_results.csv").select(
        "kind",
        "method",
        "iou_fg",
        "citation",
        pl.format("{} labels; {}", "labels", "note").alias("note"),
        eval_on=pl.col("dataset").replace_strict(_NAMES),
    )
    alone = (pl.col("train_on") == pl.col("eval_on")) & (pl.col("sampling") == "natural")
    study = (
        pl.read_csv(SEEDS / "paper_results.csv")
        .filter(alone, pl.col("eval_on").is_in(list(_NAMES)))
        .select(
            kind=pl.col("regime").replace_strict({"lora": "LoRA", "frozen": "frozen backbone"}),
            method="backbone",
            iou_fg="iou_fg_mean",
            citation=pl.format("arXiv 2602.08505, table {}", "paper_table"),
            eval_on=pl.col("eval_on").replace_strict(_NAMES),
        )
    )
    return pl.concat([literature, study], how="diagonal")


if __name__ == "__main__":
    own = pl.read_csv(HERE / "methods.csv", schema_overrides={"data": pl.String})
    rows = pl.concat([own, published()], how="diagonal_relaxed")
    save_chart(methods_chart(rows), HERE.parent / "docs" / "images" / "methods.png")
