"""OME-Zarr by ``emcache predict``, read by ome-zarr, napari and the specification's models.

These need other versions of packages than emcache has, so they stand in an environment of their
own; ``make test-napari`` makes it.
"""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from zarr.storage import LocalStore

from emcache.evaluation.predict import predict
from emcache.evaluation.predictor import PredictionOptions
from emcache.evaluation.pyramids import halved
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.plan import FeatureRequest, TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train

pytestmark = pytest.mark.napari

VOXEL = (40.0, 5.0, 4.0)
SCRIPT = Path(__file__).with_name("read_back.py")


@pytest.fixture(scope="session")
def reader(checkout: Path) -> Path:
    """Python with ome-zarr and napari's plugin."""
    python = checkout / ".venv-napari" / "bin" / "python"
    if not python.exists():
        pytest.skip("napari's reader is not installed (make test-napari)")
    return python


@pytest.mark.parametrize("voxel", [VOXEL, None], ids=["in nanometres", "of unknown size"])
def test_readers_see_what_was_predicted(
    cells: Workspace, tmp_path: Path, reader: Path, voxel: tuple[float, float, float] | None
) -> None:
    request = TrainingRequest(
        datasets=["cells"],
        features=FeatureRequest("tiny", "random:0", 84),
        protocol=Protocol(head="linear", learning_rate=1e-2, max_epochs=3),
    )
    run = train(cells, request, Quiet())[0]
    slices = np.random.default_rng(0).integers(0, 256, (3, 300, 520), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", slices, photometric="minisblack")
    options = PredictionOptions(overlays=False, ome_zarr=True, voxel_size_nm=voxel, device="cpu")
    (file,), _ = predict(cells, run.id, [tmp_path / "v.tif"], tmp_path / "out", options, Quiet())
    done = subprocess.run(
        [reader, SCRIPT, file.mask], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["nodes"]) == ["", "/labels/mask", "/labels/objects"]
    assert [layer["kind"] for layer in found["layers"]] == ["image", "labels", "labels"]
    arrays = [slices, written(file.mask, "labels/mask/0"), written(file.mask, "labels/objects/0")]
    assert arrays[1].any()
    z, y, x = voxel or (1, 1, 1)
    for place, values in enumerate(arrays):
        for seen in (list(found["nodes"].values())[place], found["layers"][place]):
            assert seen["sha256"] == hashlib.sha256(values.tobytes()).hexdigest()
            assert seen["shapes"] == [[3, 300, 520], [3, 150, 260], [3, 75, 130]]
    for node in found["nodes"].values():
        assert node["scales"] == [[z, y, x], [z, 2 * y, 2 * x], [z, 4 * y, 4 * x]]
        assert set(node["units"]) == {"nanometer" if voxel else None}
    for layer in found["layers"]:
        assert layer["scale"] == [z, y, x]
    assert np.array_equal(written(file.mask, "1"), halved(slices, labels=False))


def written(store: Path, path: str) -> np.ndarray:
    return np.asarray(zarr.open_array(LocalStore(store / path), mode="r")[:])
