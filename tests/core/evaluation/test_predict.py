from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import emcache.evaluation.predict
from emcache.cache.find import FeatureRequest
from emcache.cache.inputs import normalise
from emcache.data.register import add_dataset
from emcache.errors import ImageError, UsageError
from emcache.evaluation.predict import PredictionOptions, predict
from emcache.evaluation.trained_run import find_run
from emcache.models.arithmetic import autocast
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import TINY
from emcache.progress import Quiet
from emcache.storage.records import Record
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train as run_training

LINEAR = Protocol(head="linear", learning_rate=1e-2, max_epochs=6)
PAPER = Protocol(learning_rate=1e-3, max_epochs=6)
ALL = PredictionOptions(probabilities=True)


def train(workspace: Workspace, regime: str = "frozen", protocol: Protocol = LINEAR) -> Record:
    options = {"seeds": [0], "protocol": protocol, "save_predictions": True}
    if regime == "frozen":
        request = FeatureRequest("tiny", "random:0", 70)
        (record,) = run_training(
            workspace, TrainingRequest(datasets=["cells"], features=request, **options), Quiet()
        )
    else:
        choice = FeatureRequest("tiny", "random:0", 70)
        (record,) = run_training(
            workspace,
            TrainingRequest(datasets=["cells"], regime="lora", features=choice, **options),
            Quiet(),
        )
    return record


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def image(tmp_path: Path, name: str, shape: tuple[int, ...] = (90, 61)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack")
    else:
        Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("regime", ["frozen", "lora"])
def test_slices_of_the_training_size_give_what_the_test_gave(
    cells: Workspace, tmp_path: Path, regime: str
) -> None:
    run = train(cells, regime, PAPER)
    small = tmp_path / "small"
    small.mkdir()
    saved = sorted((run.folder / "predictions" / "cells").iterdir())
    for path in saved:
        picture = Image.open(tmp_path / "cells" / "images" / path.name)
        picture.resize((70, 70), Image.Resampling.BICUBIC).save(small / path.name)
    predict(cells, run.id, [small], tmp_path / "out", ALL, Quiet())
    for path in saved:
        assert np.array_equal(read(tmp_path / "out" / path.name), read(path))
    assert any(read(path).any() for path in saved), "nothing was found: this shows little"


def test_masks_are_of_the_inputs_kind_and_size(cells: Workspace, tmp_path: Path) -> None:
    run = train(cells)
    inputs = [
        image(tmp_path, "one.png"),
        image(tmp_path, "two.tif"),
        image(tmp_path, "photo.jpg"),
        image(tmp_path, "stack.tif", (3, 50, 80)),
    ]
    files, record = predict(cells, run.id, inputs, tmp_path / "out", ALL, Quiet())
    out = tmp_path / "out"
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "one.png",
        "overlays/one.png",
        "overlays/photo.png",
        "overlays/stack/0.png",
        "overlays/stack/1.png",
        "overlays/stack/2.png",
        "overlays/two.png",
        "photo.png",
        "probabilities/one.tif",
        "probabilities/photo.tif",
        "probabilities/stack.tif",
        "probabilities/two.tif",
        "stack.tif",
        "two.tif",
    ]
    assert [len(file.pages) for file in files] == [1, 1, 1, 3]
    for name in ("one.png", "photo.png"):
        assert read(out / name).shape == (90, 61)
        assert read(out / name).dtype == np.uint8
    stack = tifffile.imread(out / "stack.tif")
    assert stack.shape == (3, 50, 80)
    assert set(np.unique(stack)) <= {0, 255}
    for name in ("one.png", "two.tif", "stack.tif"):
        chance = tifffile.imread(out / "probabilities" / f"{name.split('.')[0]}.tif")
        assert chance.dtype == np.float32
        mask = stack if name == "stack.tif" else read(out / name)
        assert np.array_equal(chance > 0.5, mask > 0)
        assert 0 <= chance.min() <= chance.max() <= 1
    assert read(out / "overlays" / "one.png").shape == (90, 61, 3)
    assert record.config["n_slices"] == 6


def test_probabilities_equal_the_model_run_by_hand(cells: Workspace, tmp_path: Path) -> None:
    run = train(cells)
    path = image(tmp_path, "one.png")
    predict(cells, run.id, [path], tmp_path / "out", ALL, Quiet())
    small = Image.open(path).resize((42, 70), Image.Resampling.BICUBIC)
    with torch.inference_mode():
        pixels = torch.from_numpy(np.array(small))[None]
        trained, cpu = find_run(cells, run.id), torch.device("cpu")
        # Whatever arithmetic this machine was found to be fast at.
        with autocast(cpu, trained.token_precision):
            tokens = random_backbone(TINY, 0).eval()(normalise(pixels)).tokens.half().float()
        with autocast(cpu, trained.precision):
            logits = trained.load_head(cpu)(tokens, (90, 61))
        chance = logits.float().softmax(1)[0, 1].numpy()
    written = tifffile.imread(tmp_path / "out" / "probabilities" / "one.tif")
    np.testing.assert_allclose(written, chance, atol=1e-6)


def test_little_is_written_where_little_is_asked_for(cells: Workspace, tmp_path: Path) -> None:
    run = train(cells)
    options = PredictionOptions(overlays=False)
    predict(cells, run.id, [image(tmp_path, "one.png")], tmp_path / "out", options, Quiet())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.png"]


def test_what_cannot_be_predicted(cells: Workspace, tmp_path: Path) -> None:
    run = train(cells)
    path = image(tmp_path, "a/one.png")

    def fail(*inputs: Path, out: Path = tmp_path / "out") -> None:
        predict(cells, run.id, inputs, out, ALL, Quiet())

    with pytest.raises(UsageError, match="would overwrite"):
        fail(path, out=tmp_path / "a")
    other = image(tmp_path, "b/one.jpg")
    with pytest.raises(UsageError, match=r"one.png and .*one.jpg would both become"):
        fail(path, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        fail(tmp_path / "empty")
    with pytest.raises(ImageError, match="is not there"):
        fail(tmp_path / "nope.png")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(image(tmp_path, "whole.tif", (400, 300)).read_bytes()[:5000])
    with pytest.raises(ImageError, match=r"cut\.tif cannot be decoded"):
        fail(cut)
    assert not list((tmp_path / "out").rglob("*.*")), "no half file is left"


def test_one_physical_scale_needs_the_inputs_own(cells: Workspace, tmp_path: Path) -> None:
    masked = {"images": "images/*.png", "masks": "masks/*.png", "voxel_size_nm": [40.0, 5.0, 5.0]}
    add_dataset(cells, "scaled", "folder", tmp_path / "cells", masked, Quiet())
    request = FeatureRequest("tiny", "random:0", pixel_size_nm=10.0)
    (run,) = run_training(
        cells,
        TrainingRequest(datasets=["scaled"], features=request, seeds=[0], protocol=LINEAR),
        Quiet(),
    )
    path = image(tmp_path, "one.png", (84, 84))
    with pytest.raises(UsageError, match=r"was trained at 10 nm a pixel; say"):
        predict(cells, run.id, [path], tmp_path / "out", ALL, Quiet())
    known = PredictionOptions(voxel_size_nm=[40.0, 5.0, 5.0])
    predict(cells, run.id, [path], tmp_path / "out", known, Quiet())
    assert read(tmp_path / "out" / "one.png").shape == (84, 84)


def test_no_result_ever_takes_the_place_of_an_input(cells: Workspace, tmp_path: Path) -> None:
    run = train(cells)
    folder = tmp_path / "w"
    for inputs in ("overlays", "probabilities"):
        path = image(
            folder, f"{inputs}/one.tif" if inputs == "probabilities" else f"{inputs}/one.png"
        )
        before = path.read_bytes()
        with pytest.raises(UsageError, match="which is an input"):
            predict(cells, run.id, [folder / inputs], folder, ALL, Quiet())
        assert path.read_bytes() == before


def test_what_is_there_is_replaced_only_on_request(cells: Workspace, tmp_path: Path) -> None:
    run = train(cells)
    path = image(tmp_path, "one.png")
    label = image(tmp_path, "labels/one.png")
    before = label.read_bytes()
    with pytest.raises(UsageError, match=r"labels/one.png is there already; .*--overwrite"):
        predict(cells, run.id, [path], label.parent, ALL, Quiet())
    assert label.read_bytes() == before
    predict(cells, run.id, [path], label.parent, PredictionOptions(overwrite=True), Quiet())
    assert label.read_bytes() != before


def test_every_page_is_looked_at_before_the_first_is_predicted(
    cells: Workspace, tmp_path: Path
) -> None:
    run = train(cells)
    fine = image(tmp_path, "in/a.png")
    tifffile.imwrite(tmp_path / "in" / "b.tif", np.zeros((50, 50), np.uint16))
    with pytest.raises(ImageError, match=r"b\.tif.* has more than 8 bits, .*--grey-window"):
        predict(cells, run.id, [fine.parent], tmp_path / "out", ALL, Quiet())
    (tmp_path / "in" / "b.tif").unlink()
    image(tmp_path, "in/b.png", (2, 300))
    with pytest.raises(ImageError, match=r"b\.png: a slice of 2 x 300 pixels"):
        predict(cells, run.id, [fine.parent], tmp_path / "out", ALL, Quiet())
    assert not (tmp_path / "out").exists()


def test_a_stack_that_lists_one_page_of_many_is_read_whole(
    cells: Workspace, tmp_path: Path
) -> None:
    run = train(cells)
    pixels = np.zeros((5, 60, 80), np.uint8)
    tifffile.imwrite(tmp_path / "ij.tif", pixels, imagej=True, truncate=True)
    files, _ = predict(cells, run.id, [tmp_path / "ij.tif"], tmp_path / "out", ALL, Quiet())
    assert len(files[0].pages) == 5
    short = (tmp_path / "ij.tif").read_bytes()[:-2000]
    (tmp_path / "short.tif").write_bytes(short)
    with pytest.raises(ImageError, match=r"short\.tif cannot be decoded"):
        predict(cells, run.id, [tmp_path / "short.tif"], tmp_path / "out", ALL, Quiet())


def test_an_interrupt_in_a_stack_leaves_nothing_of_it(
    cells: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(cells)
    real = emcache.evaluation.predict.outline_overlay
    seen: list[int] = []

    def interrupted(*arguments):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(emcache.evaluation.predict, "outline_overlay", interrupted)
    stack = image(tmp_path, "stack.tif", (5, 50, 80))
    with pytest.raises(KeyboardInterrupt):
        predict(cells, run.id, [stack], tmp_path / "out", ALL, Quiet())
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
