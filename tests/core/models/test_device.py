"""bfloat16 changes the arithmetic, not the result."""

from __future__ import annotations

import pytest
import torch

from emcache.cache.find import FeatureRequest
from emcache.data.register import add_dataset
from emcache.models.arithmetic import Precision, pick_precision
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training
from emcache.training.scoring import iou_of

pytestmark = pytest.mark.real


def scores(workspace, request: FeatureRequest, protocol: Protocol) -> list[float]:
    """IoU on the test slices, in either arithmetic, from the same tokens."""
    found = []
    for precision in ("float32", "bfloat16"):
        options = {"seeds": [0], "protocol": protocol, "precision": precision}
        (record,) = run_training(
            workspace, TrainingRequest(datasets=["vnc"], features=request, **options), Quiet()
        )
        assert record.config["precision"] == precision
        found.append(iou_of(rows_of(record)))
    return found


def rows_of(record: Record) -> list[dict[str, object]]:
    import polars as pl

    return pl.read_parquet(record.file("slice_metrics.parquet")).to_dicts()


@pytest.fixture
def vnc(workspace, vnc_root):
    add_dataset(workspace, "vnc", "vnc", vnc_root, {}, Quiet())
    return workspace


def test_a_linear_head_scores_the_same_in_bfloat16(vnc):
    request = FeatureRequest("tiny", "random:0", 266, precision=Precision.FLOAT32)
    full, half = scores(vnc, request, Protocol(head="linear", max_epochs=15, learning_rate=1e-2))
    assert full > 0.02
    assert half == pytest.approx(full, abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(
    pick_precision("auto", torch.device("cpu")) is not Precision.BFLOAT16,
    reason="no bfloat16 in hardware here; emulated, an epoch takes minutes",
)
def test_the_studys_head_scores_the_same_in_bfloat16(vnc):
    request = FeatureRequest("dinov2-small", "random:0", 126, precision=Precision.FLOAT32)
    full, half = scores(vnc, request, Protocol(max_epochs=8, learning_rate=1e-3))
    assert full > 0.3
    assert half == pytest.approx(full, abs=0.01)
