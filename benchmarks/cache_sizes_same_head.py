"""What storing tokens in fewer bytes does to heads that were trained on float16.

python benchmarks/cache_sizes_same_head.py WORKSPACE --runs cache_sizes.csv --out FILE.csv

The workspace is that of ``cache_sizes.py``. No head is trained again, so nothing but the tokens
differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import torch
from cache_sizes import BACKBONE, EDGE, WAYS, Way

from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import FeatureRequest, choose_feature_set
from emcache.cache.labels import ensure_labels
from emcache.data.dataset import Dataset, load_dataset
from emcache.evaluation.trained_run import TrainedRun, find_run
from emcache.models.arithmetic import autocast
from emcache.models.heads import Head
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.counts import Counts

CPU = torch.device("cpu")


def test_iou(trained: TrainedRun, head: Head, features: FeatureSet, dataset: Dataset) -> float:
    """Foreground IoU of a head on the test slices' tokens."""
    labels = ensure_labels(features, dataset.labelled, dataset.classes, Quiet())
    counts = []
    for place, item in enumerate(dataset.labelled):
        if item.split == "test":
            tokens = torch.from_numpy(np.ascontiguousarray(features.tokens(place))).float()
            mask = torch.from_numpy(np.ascontiguousarray(labels.mask(place)))
            with torch.inference_mode(), autocast(CPU, trained.precision):
                logits = head(tokens.permute(2, 0, 1)[None], tuple(mask.shape))
            counts.append(Counts.of(logits.argmax(dim=1)[0], mask))
    return Counts.total(counts).iou


def stored(workspace: Workspace, dataset: Dataset, way: Way) -> FeatureSet:
    """A dataset's tokens, stored in one way."""
    request = FeatureRequest(BACKBONE, None, EDGE, dtype=way.dtype, components=way.components)
    found = choose_feature_set(workspace, dataset, request)
    assert found is not None  # noqa: S101 - cache_sizes.py has made it
    return found


def main() -> None:
    """Write a row for every run, and way to store tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    workspace = Workspace(given.workspace)
    rows = []
    for row in pl.read_csv(given.runs).filter(way="float16").iter_rows(named=True):
        dataset = load_dataset(workspace, row["dataset"], Quiet())
        trained = find_run(workspace, row["run_id"])
        head = trained.load_head(CPU).eval()
        for way in WAYS:
            iou = test_iou(trained, head, stored(workspace, dataset, way), dataset)
            facts = {name: row[name] for name in ("dataset", "head", "seed")}
            rows.append({**facts, "way": way.name, "iou_fg": iou, "change": iou - row["iou_fg"]})
    pl.DataFrame(rows).write_csv(given.out)


if __name__ == "__main__":
    main()
