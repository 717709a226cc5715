"""The report of the study's whole grid stays a file that can be mailed."""

from __future__ import annotations

import base64
import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from emcache.storage.records import new_record
from emcache.storage.workspace import init_workspace
from emcache_warehouse.report.content import table_of
from emcache_warehouse.report.lean import drop_unread_columns
from emcache_warehouse.report.page import write_report

BACKBONES = (
    *(f"dinov2-{size}" for size in ("small", "base", "large", "giant")),
    *(f"dinov3-{size}" for size in ("small", "base", "large")),
    *(f"openclip-vit-{size}-14" for size in ("l", "h")),
)
# 165 + 165 slices of Lucchi++, 20 + 20 of VNC.
DOMAINS = {"lucchi++:train": 165, "lucchi++:test": 165, "vnc": 20, "vnc:stack2": 20}


@pytest.mark.slow
def test_the_studys_grid_takes_less_than_10_mb(made_up):
    workspace, _ = init_workspace(made_up.root)
    for name, slices in (("vnc", 40), ("lucchi++", 330)):
        made_up.dataset(name, slices)
        audit(made_up, name, min(slices, 330))
    for backbone in BACKBONES:
        facts = {"backbone": backbone, "longest_edge": 1022, "weights": "pretrained"}
        made_up.extract(f"vnc-{backbone}", **facts)
        for regime, run_id in (("frozen", None), ("lora", f"run-{backbone}")):
            for sources in (("lucchi++",), ("vnc",), ("lucchi++", "vnc")):
                for seed in range(5):
                    epochs = made_up.epochs(100)
                    made_up.train(
                        sources, seed, epochs=epochs, regime=regime, protocol="paper", **facts
                    )
            made_up.gap(
                tuple(DOMAINS), regime, run_id, sizes=tuple(DOMAINS.values()),
                thumbnail=thumbnail(made_up.random), recipe_sha256=backbone + regime, **facts,
            )  # fmt: skip
    made_up.sync()
    write_report(workspace, made_up.root / "report.html")
    assert (made_up.root / "report.html").stat().st_size < 10_000_000


def noise(random: np.random.Generator, side: int) -> Image.Image:
    """A picture that compresses worse than any slice."""
    return Image.fromarray(random.integers(60, 190, (side, side), np.uint8))


def thumbnail(random: np.random.Generator) -> str:
    buffer = io.BytesIO()
    noise(random, 96).save(buffer, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def audit(made_up, name: str, count: int) -> None:
    with new_record(made_up.runs, "audit") as draft:
        pairing = {"own_mask_wins": 1.0, "cause": None, "channel": "gradient"}
        check = {"name": "pairing", "verdict": "pass", "message": "Every mask fits."}
        draft.config = {
            "dataset": name, "verdict": "pass", "checks": [check], "pairing": pairing,
        }  # fmt: skip
        ids = [f"{place:03d}" for place in range(count)]
        rows = pl.DataFrame({"image": ids}).join(pl.DataFrame({"mask": ids}), how="cross")
        draft.write_table(
            "audit_scores.parquet",
            rows.with_columns(
                score=pl.lit(0.123456789),
                declared=pl.col("image") == pl.col("mask"),
                assigned=pl.col("image") == pl.col("mask"),
            ),
        )
        for place in range(4):
            noise(made_up.random, 420).save(draft.path(f"worst/{place}.png"))


def test_what_all_rows_share_is_said_once():
    frame = pl.DataFrame(
        {"train_on": ["vnc", "vnc"], "px": [266, 266], "seen": [False, False], "iou": [0.4, 0.5]}
    )
    headings = {"train_on": "trained on", "px": "px", "seen": "seen", "iou": "IoU"}
    table = table_of("Scores", frame, headings, always=("train_on", "iou"))
    assert table.caption == "Scores; throughout: px 266"
    assert table.columns == ["trained on", "IoU"]
    assert table.rows == [["vnc", "0.4"], ["vnc", "0.5"]]
    assert table_of("Scores", frame, headings).columns == list(headings.values())


def test_columns_that_a_chart_does_not_speak_of_are_left_out():
    rows = [{"iou": 0.4, "seed": 1, "run_id": "a", "other": 2, "backbone name": "b"}]
    encoding = {"x": {"field": "iou"}, "y": {"field": "backbone name"}}
    spec = {
        "layer": [{"encoding": encoding, "transform": [{"filter": "datum.seed > 0"}]}],
        "data": {"name": "rows"},
        "datasets": {"rows": rows},
    }
    lean = drop_unread_columns(spec)
    assert lean["datasets"] == {"rows": [{"iou": 0.4, "seed": 1, "backbone name": "b"}]}
    assert lean["layer"] == spec["layer"]
    assert drop_unread_columns({"data": {"values": [1]}}) == {"data": {"values": [1]}}
