"""Errors beside the edges of tiles, on real slices with the real checkpoint."""

from pathlib import Path

import numpy as np
import pytest
from emcache_bench.seams import near_edges

from emcache.cache.find import FeatureRequest
from emcache.data.dataset import load_dataset
from emcache.data.images import read_image, read_mask
from emcache.data.register import add_dataset
from emcache.data.tiling import Tiling
from emcache.evaluation.predictor import PredictionOptions, Predictor
from emcache.evaluation.trained_run import find_run
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train


@pytest.mark.real
@pytest.mark.weights
@pytest.mark.slow
def test_the_edges_of_tiles_are_no_worse_than_the_rest(
    workspace: Workspace, vnc_root: Path, pretrained_file: Path
) -> None:
    add_dataset(workspace, "vnc", "vnc", vnc_root, {}, Quiet())
    errors = {}
    for overlap in (56, 0):
        protocol = Protocol(
            head="linear", learning_rate=1e-2, max_epochs=12, batch=8, tile=266, overlap=overlap
        )
        request = TrainingRequest(
            datasets=["vnc"],
            features=FeatureRequest("dinov2-small", str(pretrained_file)),
            protocol=protocol,
            device="cpu",
        )
        (record,) = train(workspace, request, Quiet())
        errors[overlap] = wrong(workspace, record.id, Tiling(266, overlap))
    near, elsewhere = errors[56]
    assert near <= elsewhere < 0.04
    # Without an overlap they are: so this would be seen.
    near, elsewhere = errors[0]
    assert near > 1.3 * elsewhere


def wrong(workspace: Workspace, run: str, tiling: Tiling) -> tuple[float, float]:
    """Shares of wrong pixels of the test slices within 32 px of an edge, and elsewhere."""
    options = PredictionOptions(device="cpu")
    predictor = Predictor.open(workspace, find_run(workspace, run), options, Quiet())
    found: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for item in load_dataset(workspace, "vnc").slices:
        if item.split == "test" and item.mask is not None:
            predicted = predictor.segment(read_image(item.image)).labels > 0
            differ = predicted != (read_mask(item.mask) >= 128)
            near = near_edges(differ.shape, tiling)
            for which in found:
                found[which].append(differ[near == which])
    near, elsewhere = (float(np.concatenate(found[which]).mean()) for which in (True, False))
    return near, elsewhere
