"""Trainings on tiles of slices, and what comes of them."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile
from PIL import Image
from safetensors.torch import load_file

from emcache.cache.feature_jobs import job_of
from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import FeatureRequest
from emcache.data import sections
from emcache.data.dataset import load_dataset
from emcache.data.images import read_image, read_mask
from emcache.data.tiles import cut_dataset
from emcache.data.tiling import Tiling
from emcache.errors import UsageError
from emcache.evaluation import outputs
from emcache.evaluation.evaluate import EvaluationOptions, evaluate_run
from emcache.evaluation.predict import predict
from emcache.evaluation.predictor import PredictionOptions, Predictor
from emcache.evaluation.pyramids import Spool
from emcache.evaluation.trained_run import find_run
from emcache.gap.outside import measure_familiarity
from emcache.library.tokens import TokenDataset
from emcache.library.workspace import Workspace as LibraryWorkspace
from emcache.maintenance.prune import prune_cache
from emcache.maintenance.repair import repair_feature_set, verify_feature_set
from emcache.progress import Quiet
from emcache.storage.records import Record, read_record
from emcache.storage.workspace import Workspace
from emcache.training.annotations import Points
from emcache.training.few_label import _within
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol, find_protocol
from emcache.training.run import train
from emcache.training.sampling import Sources, split_of

LINEAR = Protocol(head="linear", learning_rate=1e-2, max_epochs=4)
TILED = replace(LINEAR, tile=56, overlap=28)
FEATURES = FeatureRequest("tiny", "random:0")


def run(workspace: Workspace, protocol: Protocol, **changes: object) -> Record:
    request = TrainingRequest(
        datasets=["cells"], features=FEATURES, protocol=protocol, seeds=[0], device="cpu"
    )
    return train(workspace, replace(request, **changes), Quiet())[0]


def metrics(record: Record) -> pl.DataFrame:
    return pl.read_parquet(record.file("slice_metrics.parquet"))


@pytest.fixture
def tiled(cells: Workspace) -> Record:
    return run(cells, TILED)


def test_one_tile_that_covers_a_slice_changes_no_bit(cells: Workspace, tmp_path: Path) -> None:
    features = replace(FEATURES, longest_edge=84)
    whole = run(cells, LINEAR, features=features)
    covered = run(cells, replace(LINEAR, tile=500, overlap=3), features=features)
    assert metrics(covered).equals(metrics(whole))
    assert covered.config["feature_sets"] != whole.config["feature_sets"]
    heads = [load_file(record.file("head.safetensors")) for record in (whole, covered)]
    assert all(heads[0][name].equal(heads[1][name]) for name in heads[0])
    folder = tmp_path / "cells" / "images"
    options = PredictionOptions(probabilities=True)
    for name, record in (("whole", whole), ("covered", covered)):
        predict(cells, record.id, [folder], tmp_path / name, options, Quiet())
    files = sorted(path for path in (tmp_path / "whole").rglob("*.*") if path.is_file())
    assert len(files) == 30
    for path in files:
        other = tmp_path / "covered" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes()


def test_a_head_learns_from_tiles(cells: Workspace, tiled: Record) -> None:
    (feature_set,) = (FeatureSet.open(path) for path in cells.cache.iterdir() if path.is_dir())
    whole = load_dataset(cells, "cells")
    assert len(feature_set) == 4 * len(whole.slices)
    assert {item.grid for item in feature_set.slices} == {(4, 4)}
    assert feature_set.description["tile"] == [56, 28]
    assert "-tile56+28-" in feature_set.name
    config = tiled.config
    assert config["longest_edge"] == 56
    assert config["protocol_fields"]["tile"] == 56
    assert "tile=56, overlap=28" in config["protocol"]
    assert config["recipe"]["preprocessing"]["tile"] == [56, 28]


def test_every_pixel_is_scored_once(cells: Workspace, tiled: Record) -> None:
    rows = metrics(tiled).filter(pl.col("class") == "foreground")
    dataset = load_dataset(cells, "cells")
    test = {item.id: item for item in dataset.slices if item.split == "test"}
    assert rows["slice_id"].to_list() == list(test)
    for row in rows.rows(named=True):
        item = test[row["slice_id"]]
        assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == item.height * item.width
        assert row["tp"] + row["fn"] == item.foreground_pixels


def test_scores_are_those_of_each_pixels_own_tile(cells: Workspace, tiled: Record) -> None:
    trained = find_run(cells, tiled.id)
    predictor = Predictor.open(cells, trained, PredictionOptions(device="cpu"), Quiet())
    tiles = cut_dataset(cells, load_dataset(cells, "cells"), Tiling(56, 28), Quiet())
    counts: Counter[str] = Counter()
    # A tile by itself is a slice that a single tile covers.
    for item in tiles.slices:
        if item.split == "test":
            assert item.tile is not None
            assert item.mask is not None
            part, own = item.tile.part, item.tile.own
            inside = (
                slice(own.row - part.row, own.row - part.row + own.rows),
                slice(own.column - part.column, own.column - part.column + own.columns),
            )
            predicted = predictor.segment(read_image(item.image)).labels[inside] > 0
            true = read_mask(item.mask)[inside] >= 128
            counts["tp"] += int((predicted & true).sum())
            counts["fp"] += int((predicted & ~true).sum())
    found = metrics(tiled).filter(pl.col("class") == "foreground")
    assert counts == Counter(tp=found["tp"].sum(), fp=found["fp"].sum())


def test_tiles_of_a_slice_learn_or_validate_together(cells: Workspace) -> None:
    dataset = cut_dataset(cells, load_dataset(cells, "cells"), Tiling(56, 28), Quiet())
    sources = Sources.of([(dataset, dataset.labelled)])
    for protocol in (TILED, replace(TILED, val_split="block"), replace(TILED, train_slices=3)):
        split = split_of(sources, protocol, 1)
        train_names = {sources.at(place)[1].whole.id for place in split.steps}
        val_names = {sources.at(place)[1].whole.id for place in split.val}
        assert train_names
        assert val_names
        assert not train_names & val_names
        slices = protocol.train_slices or len(dataset.of_whole_slices.slices) - len(
            [s for s in dataset.of_whole_slices.slices if s.split == "test"]
        )
        assert len(split.steps) + len(split.val) == 4 * slices


def test_tiles_of_a_single_section_are_divided(cells: Workspace) -> None:
    whole = load_dataset(cells, "cells")
    two = replace(whole, slices=(whole.slices[0], whole.slices[-1]))
    dataset = cut_dataset(cells, two, Tiling(56, 28), Quiet())
    sources = Sources.of([(dataset, dataset.labelled)])
    split = split_of(sources, TILED, 0)
    assert len(split.steps) == 3
    assert len(split.val) == 1


def test_what_was_learned_from_is_known_by_slices(cells: Workspace, tiled: Record) -> None:
    table = pl.read_parquet(tiled.file("training_slices.parquet"))
    dataset = load_dataset(cells, "cells")
    train_slices = {s.id: s.pixel_sha256 for s in dataset.slices if s.split == "train"}
    assert dict(table.select("slice_id", "pixel_sha256").rows()) == train_slices
    assert tiled.config["annotated_slices"] == len(train_slices)
    assert tiled.config["labelled_pixels"] == 84 * 84 * len(train_slices)
    record = evaluate_run(cells, tiled.id, ["cells"], EvaluationOptions(device="cpu"), Quiet())
    rows = metrics(record).filter(pl.col("class") == "foreground")
    assert rows["slice_id"].to_list() == [item.id for item in dataset.slices]
    seen = rows.filter(pl.col("slices_from_training") == 0)["slice_id"].to_list()
    assert seen == list(train_slices)
    test = metrics(tiled)["tp"].sum()
    assert rows.filter(split="test")["tp"].sum() == test


def test_a_u_net_and_lora_learn_from_tiles(cells: Workspace) -> None:
    lora = run(cells, replace(TILED, max_epochs=1), regime="lora")
    assert lora.config["longest_edge"] == 56
    unet = Protocol(name="unet", head="unet", max_epochs=1, crop=32, tile=56)
    record = run(cells, unet, regime="supervised", features=FeatureRequest())
    assert record.config["longest_edge"] == 56
    assert record.config["protocol_fields"]["overlap"] == 7
    assert metrics(record).height == metrics(lora).height


def test_tiles_are_asked_for_apart_from_whole_slices(cells: Workspace, tiled: Record) -> None:
    whole = run(cells, LINEAR, features=replace(FEATURES, longest_edge=56))
    assert whole.config["feature_sets"] != tiled.config["feature_sets"]
    again = run(cells, TILED)
    assert metrics(again).equals(metrics(tiled))
    assert len([path for path in cells.cache.iterdir() if path.is_dir()]) == 2


def test_pictures_of_tiles_are_not_kept(cells: Workspace, tiled: Record) -> None:
    with pytest.raises(UsageError, match="--save-predictions keeps whole slices"):
        run(cells, TILED, save_predictions=True)
    with pytest.raises(UsageError, match="--save-predictions keeps whole slices"):
        evaluate_run(cells, tiled.id, ["cells"], EvaluationOptions(save_predictions=True), Quiet())


def test_tiles_are_repaired_and_are_not_stale(cells: Workspace, tiled: Record) -> None:
    (folder,) = (path for path in cells.cache.iterdir() if path.is_dir())
    job = job_of(cells, folder, Quiet())
    assert (job.name, job.fingerprint) == (folder.name, FeatureSet.open(folder).fingerprint)
    assert prune_cache(cells, [], stale=True, dry_run=True, reporter=Quiet()) == []
    shard = next(folder.glob("grids/*/tokens/c/0/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    damages = verify_feature_set(folder)
    assert damages
    repair_feature_set(cells, folder.name, damages, Quiet())
    assert verify_feature_set(folder) == []


def test_a_worker_is_told_of_its_own_tiles_alone(cells: Workspace, tiled: Record) -> None:
    (folder,) = (path for path in cells.cache.iterdir() if path.is_dir())
    job = job_of(cells, folder, Quiet())
    part = job.part([1])
    assert part.dataset.of_whole_slices.slices == part.slices == job.slices[1:2]
    assert 10 * len(pickle.dumps(part.dataset)) < len(pickle.dumps(job.dataset))


def test_tokens_of_tiles_come_with_their_masks(cells: Workspace, tiled: Record) -> None:
    place = LibraryWorkspace(cells)
    (feature_set,) = place.feature_sets("cells")
    items = TokenDataset(feature_set, place.dataset("cells"), "test")
    dataset = load_dataset(cells, "cells")
    assert len(items) == 4 * sum(item.split == "test" for item in dataset.slices)
    tokens, mask = items[0]
    assert tokens.shape[1:] == (4, 4)
    assert mask.shape == (56, 56)


def test_new_slices_are_compared_tile_by_tile(cells: Workspace, tiled: Record) -> None:
    rows, _ = measure_familiarity(cells, tiled.id, ["cells"], Quiet(), device="cpu")
    dataset = load_dataset(cells, "cells")
    assert len(rows) == 4 * len(dataset.slices)
    learned = {row["slice_id"].partition("@")[0] for row in rows if row["learned_from"]}
    assert learned == {item.id for item in dataset.slices if item.split == "train"}


def test_a_large_slice_is_read_and_written_part_by_part(
    cells: Workspace, tiled: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as where it is held, in a tiled TIFF with smaller copies."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 260), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), photometric="minisblack")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    options = PredictionOptions(probabilities=True, device="cpu")
    files = [tmp_path / "a.tif", tmp_path / "b.png"]
    predict(cells, tiled.id, files, tmp_path / "held", options, Quiet())
    for module in (sections, outputs):
        monkeypatch.setattr(module, "is_large", lambda rows, columns: rows * columns > 40_000)
    monkeypatch.setattr(sections, "_SMALL_EDGE", 150)
    read: list[int] = []
    real = tifffile.TiffPage.asarray

    def count(self: tifffile.TiffPage, *rest: object, **options: object) -> np.ndarray:
        read.append(self.index)
        return real(self, *rest, **options)

    monkeypatch.setattr(tifffile.TiffPage, "asarray", count)
    predict(cells, tiled.id, files, tmp_path / "parts", options, Quiet())
    assert not read, "the page was decoded at once"
    monkeypatch.setattr(tifffile.TiffPage, "asarray", real)
    for name, held in (("a.tif", "a.tif"), ("b.tif", "b.png")):
        with tifffile.TiffFile(tmp_path / "parts" / name) as file:
            (page,) = file.pages
            assert page.is_tiled
            assert len(page.pages) == 1
            assert np.array_equal(page.asarray(), read_image_of(tmp_path / "held" / held))
    for name in ("a.tif", "b.tif"):
        parts, held = (tmp_path / which / "probabilities" / name for which in ("parts", "held"))
        assert np.array_equal(tifffile.imread(parts), tifffile.imread(held))
    assert Image.open(tmp_path / "parts" / "overlays" / "b.png").size == (130, 150)
    assert not list((tmp_path / "parts").glob(".*"))


def test_a_prediction_that_is_stopped_leaves_nothing(
    cells: Workspace, tiled: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((300, 260), np.uint8), photometric="minisblack")
    monkeypatch.setattr(outputs, "is_large", lambda *_: True)
    real, rows = Spool.append, []

    def stop(self: Spool, given: np.ndarray, level: int = 0) -> None:
        rows.append(given)
        if len(rows) == 3:
            raise KeyboardInterrupt
        real(self, given, level)

    monkeypatch.setattr(Spool, "append", stop)
    options = PredictionOptions(device="cpu")
    with pytest.raises(KeyboardInterrupt):
        predict(cells, tiled.id, [tmp_path / "a.tif"], tmp_path / "out", options, Quiet())
    assert not list((tmp_path / "out").iterdir())


def read_image_of(path: Path) -> np.ndarray:
    return tifffile.imread(path) if path.suffix == ".tif" else np.asarray(Image.open(path))


def test_the_record_of_an_extraction_names_the_tiles(cells: Workspace, tiled: Record) -> None:
    (name,) = (path.name for path in cells.runs.iterdir() if "-extract-" in path.name)
    table = pl.read_parquet(read_record(cells.runs / name).file("slices.parquet"))
    assert table["slice_id"][1] == "0@0,28"
    assert table["image"][1].endswith("0.png@0,28+56x56")


def test_points_of_a_slice_go_to_the_tiles_that_own_them(cells: Workspace, tmp_path: Path) -> None:
    dataset = cut_dataset(cells, load_dataset(cells, "cells"), Tiling(56, 28), Quiet())
    tiles = [item for item in dataset.slices if item.whole.id == "0"]
    places = np.array([[0.0, 0.0], [83.0, 83.0], [41.0, 42.0], [20.0, 70.0]])
    points = Points((places + 0.5) / 84, np.array([1, 0, 1, 0], np.uint8))
    found = [_within(points, item) for item in tiles]
    again = sorted(
        (*map(float, own.places[place] * 56 + (item.tile.part.row, item.tile.part.column)), value)
        for item, own in zip(tiles, found, strict=True)
        for place, value in enumerate(own.foreground.tolist())
    )
    expected = sorted(
        (*place, value) for place, value in zip(places + 0.5, [1, 0, 1, 0], strict=True)
    )
    np.testing.assert_allclose(again, expected)


def test_a_few_labels_fit_a_head_on_tiles(cells: Workspace, tmp_path: Path) -> None:
    protocol = replace(find_protocol("few-label"), clicks=6, tile=56, overlap=28)
    drawn = run(cells, protocol, regime="few-label")
    assert drawn.config["annotated_slices"] == 1
    assert drawn.config["labelled_pixels"] == 12
    names = {name.partition("@")[0] for name in drawn.config["train_slices"]}
    assert len(names) == 1
    assert 1 < len(drawn.config["train_slices"]) <= 4
    rows = ["slice,row,col,label", "2,3,3,background", "2,80,80,background", "2,40,40,foreground"]
    (tmp_path / "points.csv").write_text("\n".join(rows))
    given = run(
        cells,
        replace(protocol, clicks=None),
        regime="few-label",
        annotations=tmp_path / "points.csv",
    )
    assert given.config["annotated_slices"] == 1
    assert given.config["labelled_pixels"] == 3
