"""Made-up records, by the thousand, for benchmarks and tests of the warehouse.

Apart from the benchmarks, which import torch: that takes seconds in every process.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from emcache.storage.records import new_record


def write_training_records(runs: Path, seeds: Iterable[int], slices: int) -> None:
    """Made-up records of training, as ``train-head`` leaves them.

    Args:
        runs: Folder of the records.
        seeds: One record each.
        slices: Test slices of each.
    """
    epochs = pl.DataFrame(
        {
            "epoch": [1, 2],
            "train_loss": [0.5, 0.4],
            "val_loss": [0.5, 0.4],
            "val_iou_fg": [0.5, 0.6],
            "seconds": [1.0, 1.0],
        }
    )
    counts: dict[str, Any] = {
        "eval_on": "vnc",
        "split": "test",
        "slice_id": [f"{place:04d}" for place in range(slices)],
        "class": "foreground",
        "tp": list(range(slices)),
        "fp": 100,
        "fn": 100,
        "tn": 3000,
    }
    for seed in seeds:
        with new_record(runs, "train-head") as draft:
            draft.config = {
                "regime": "frozen",
                "backbone": "dinov2-small",
                "weights": "random:0",
                "longest_edge": 266,
                "protocol": "paper",
                "train_on": "vnc",
                "sampling": "natural",
                "seed": seed,
                "setup_fingerprint": "made up",
            }
            draft.write_table("epochs.parquet", epochs)
            draft.write_table("slice_metrics.parquet", pl.DataFrame(counts))
