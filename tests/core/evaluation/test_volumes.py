"""Volumes that are predicted into OME-Zarr."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile
import zarr
from scipy import ndimage
from zarr.storage import LocalStore

from emcache.data.images import read_image
from emcache.data.plane import Plane
from emcache.data.volumes.open import open_volume
from emcache.errors import UsageError
from emcache.evaluation import ome_zarr
from emcache.evaluation.ome_zarr import MultiscaleWriter, image_label
from emcache.evaluation.predict import predict
from emcache.evaluation.predictor import PredictionOptions
from emcache.evaluation.pyramids import halved
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import FeatureRequest, TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import sync

VOXEL = (40.0, 5.0, 4.0)
OPTIONS = PredictionOptions(probabilities=True, overlays=False, device="cpu", ome_zarr=True)


def trained(workspace: Workspace, **fields: int) -> Record:
    protocol = Protocol(head="linear", learning_rate=1e-2, max_epochs=6, **fields)
    request = TrainingRequest(
        datasets=["cells"],
        features=FeatureRequest("tiny", "random:0", 84),
        protocol=protocol,
        device="cpu",
    )
    return train(workspace, request, Quiet())[0]


@pytest.fixture
def volume(cells: Workspace, tmp_path: Path) -> Path:
    """Slices of the training and their mirror images, with a voxel size."""
    images = sorted((tmp_path / "cells" / "images").iterdir())[:3]
    pixels = np.stack([read_image(Plane(path)) for path in images])
    path = tmp_path / "v.tif"
    tifffile.imwrite(
        path,
        np.concatenate([pixels, pixels[:, ::-1]]),
        ome=True,
        photometric="minisblack",
        metadata={
            "axes": "ZYX",
            **{
                f"PhysicalSize{axis}{part}": value
                for axis, size in zip("ZYX", VOXEL, strict=True)
                for part, value in (("", size), ("Unit", "nm"))
            },
        },
    )
    return path


@pytest.mark.parametrize("fields", [{}, {"tile": 56, "overlap": 28}], ids=["whole", "tiled"])
def test_a_volume_holds_what_files_would(
    cells: Workspace, volume: Path, tmp_path: Path, fields: dict[str, int]
) -> None:
    run = trained(cells, **fields)
    predict(cells, run.id, [volume], tmp_path / "out", OPTIONS, Quiet())
    flat = PredictionOptions(probabilities=True, overlays=False, device="cpu")
    predict(cells, run.id, [volume], tmp_path / "flat", flat, Quiet())
    store = tmp_path / "out" / "v.ome.zarr"
    mask = tifffile.imread(tmp_path / "flat" / "v.tif")
    assert mask.any()
    assert np.array_equal(read(store, "labels/mask/0"), (mask > 0).astype(np.uint8))
    assert np.array_equal(read(store, "0"), tifffile.imread(volume))
    probability = tifffile.imread(tmp_path / "flat" / "probabilities" / "v.tif")
    there = tmp_path / "out" / "probabilities" / "v.ome.zarr"
    assert np.array_equal(read(there, "0"), probability)
    objects = read(store, "labels/objects/0")
    expected, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert objects.max() == count
    assert len(np.unique(np.stack([objects.ravel(), expected.ravel()]), axis=1).T) == count + 1


def read(store: Path, path: str) -> np.ndarray:
    return np.asarray(zarr.open_array(LocalStore(store / path), mode="r")[:])


def test_it_is_read_again_with_its_voxel_size(cells: Workspace, volume: Path, tmp_path: Path):
    run = trained(cells)
    predict(cells, run.id, [volume], tmp_path / "out", OPTIONS, Quiet())
    store = tmp_path / "out" / "v.ome.zarr"
    for inner in ("", "labels/mask", "labels/objects"):
        again = open_volume(store, inner)
        assert again.voxel_size_nm == VOXEL
        assert len(again.sizes) == 6
    # So it is an input as well, and its own name is not taken.
    with pytest.raises(UsageError, match="which is an input"):
        predict(cells, run.id, [store], tmp_path / "out", OPTIONS, Quiet())
    files, _ = predict(
        cells, run.id, [store], tmp_path / "again", PredictionOptions(overlays=False), Quiet()
    )
    assert files[0].mask == tmp_path / "again" / "v.ome.zarr"
    for path in ("0", "labels/mask/0", "labels/objects/0"):
        assert np.array_equal(read(files[0].mask, path), read(store, path))


def test_the_users_voxel_size_wins(cells: Workspace, volume: Path, tmp_path: Path) -> None:
    run = trained(cells)
    options = PredictionOptions(
        overlays=False, device="cpu", ome_zarr=True, voxel_size_nm=(30.0, 8.0, 8.0)
    )
    (file,), _ = predict(cells, run.id, [volume], tmp_path / "out", options, Quiet())
    assert open_volume(file.mask).voxel_size_nm == (30.0, 8.0, 8.0)


def test_objects_are_in_a_table_and_in_the_warehouse(
    cells: Workspace, volume: Path, tmp_path: Path
) -> None:
    run = trained(cells)
    (file,), record = predict(cells, run.id, [volume], tmp_path / "out", OPTIONS, Quiet())
    assert file.objects is not None
    table = pl.read_parquet(file.objects)
    assert record.config["n_objects"] == table.height > 0
    ids, sizes = np.unique(read(file.mask, "labels/objects/0"), return_counts=True)
    assert table["object_id"].to_list() == ids[1:].tolist()
    assert table["voxels"].to_list() == sizes[1:].tolist()
    sync(cells.runs, cells.warehouse)
    found = run_query(
        cells.warehouse,
        "SELECT objects.* EXCLUDE (prediction_id, input), run_id, n_objects FROM objects "
        "JOIN predictions USING (prediction_id) ORDER BY object_id",
        {},
    )
    assert found["run_id"].unique().to_list() == [run.id]
    assert found["n_objects"].unique().to_list() == [table.height]
    assert found.select(table.columns).equals(table)


def test_what_is_there_stays_unless_it_may_be_replaced(
    cells: Workspace, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = trained(cells), tmp_path / "out"
    predict(cells, run.id, [volume], out, OPTIONS, Quiet())
    with pytest.raises(UsageError, match=r"v\.ome\.zarr is there already"):
        predict(cells, run.id, [volume], out, OPTIONS, Quiet())
    before = read(out / "v.ome.zarr", "labels/objects/0")
    options = PredictionOptions(overlays=False, device="cpu", ome_zarr=True, overwrite=True)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("emcache.evaluation.volumes.label_objects", stop)
        with pytest.raises(KeyboardInterrupt):
            predict(cells, run.id, [volume], out, options, Quiet())
    assert np.array_equal(read(out / "v.ome.zarr", "labels/objects/0"), before)
    assert {path.name for path in out.iterdir()} == {
        *("v.ome.zarr", "v.objects.parquet", "probabilities")
    }
    predict(cells, run.id, [volume], out, options, Quiet())
    assert np.array_equal(read(out / "v.ome.zarr", "labels/objects/0"), before)
    (out / "w.ome.zarr").mkdir()
    (out / "w.ome.zarr" / "mine.txt").write_text("mine")
    volume.rename(tmp_path / "w.tif")
    with pytest.raises(UsageError, match="is a folder and no Zarr"):
        predict(cells, run.id, [tmp_path / "w.tif"], out, options, Quiet())


def test_slices_of_several_sizes_are_no_volume(cells: Workspace, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for side in (84, 90):
            tiff.write(np.zeros((side, side), np.uint8), photometric="minisblack", metadata=None)
    run = trained(cells)
    with pytest.raises(UsageError, match="holds slices of 2 sizes, and a volume has one"):
        predict(cells, run.id, [tmp_path / "a.tif"], tmp_path / "out", OPTIONS, Quiet())


@pytest.mark.parametrize("brick", [1 << 25, 600 * 700 * 2, 1000])
@pytest.mark.parametrize("labels", [True, False])
def test_every_level_is_half_the_one_before_however_rows_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brick: int, labels: bool
) -> None:
    """In bricks of all sections, of two, or of some rows."""
    monkeypatch.setattr(ome_zarr, "_BRICK", brick)
    values = np.random.default_rng(0).integers(0, 256, (5, 600, 700), dtype=np.uint8)
    about = image_label({1: "a"}) if labels else {}
    writer = MultiscaleWriter(tmp_path / "v", "", values.shape, values.dtype, VOXEL, about)
    rows = values.reshape(-1, 700)
    for start in range(0, len(rows), 170):
        writer.append(rows[start : start + 170])
    assert [level.shape for level in writer.levels] == [(5, 600, 700), (5, 300, 350), (5, 150, 175)]
    for level in writer.levels:
        assert np.array_equal(level[:], values)
        values = halved(values, labels=labels)
    attributes = zarr.open_group(tmp_path / "v", mode="r").attrs["ome"]
    assert attributes["version"] == "0.5"
    assert ("image-label" in attributes) is labels
    scales = [d["coordinateTransformations"] for d in attributes["multiscales"][0]["datasets"]]
    assert scales[0] == [{"type": "scale", "scale": [40, 5, 4]}]
    assert scales[1] == [
        {"type": "scale", "scale": [40, 10, 8]},
        {"type": "translation", "translation": [0, 2.5, 2]},
    ]
