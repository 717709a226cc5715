"""The public face: its names, its page, and what it says of itself."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from emcache_bench.synthetic import STYLES, write_domain
from PIL import Image

import emcache
from emcache.errors import ImageError, RecordError, StoreError, UsageError

NAMES = [
    "Dataset",
    "EmcacheError",
    "FeatureSet",
    "Protocol",
    "TokenDataset",
    "TrainedRun",
    "Workspace",
    "__version__",
    "audit",
    "build_head",
    "evaluate",
    "extract",
    "load_backbone",
    "measure_familiarity",
    "measure_gaps",
    "run_study",
    "train",
]
MASKED = {"images": "images/*.png", "masks": "masks/*.png"}


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_these_are_the_public_names(checkout: Path) -> None:
    assert emcache.__all__ == NAMES == dir(emcache)
    page = (checkout / "docs/library.md").read_text()
    table = page.partition("## The public names")[2]
    for name in NAMES:
        assert getattr(emcache, name) is not None
        assert f"`{name}" in table
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        emcache.nothing  # noqa: B018


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    loaded = "import sys; print(sorted({'torch', 'zarr', 'polars', 'numpy'} & set(sys.modules)))"
    assert python(f"import emcache; {loaded}").strip() == "[]"
    assert "torch" not in python(f"import emcache; emcache.FeatureSet, emcache.Workspace; {loaded}")


def test_the_page_runs_as_it_stands(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    write_domain(tmp_path / "cells", STYLES["sharp"], slices=10, size=84, seed=3)
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=84, seed=4)
    names: dict[str, object] = {}
    for block in blocks(checkout / "docs/library.md"):
        exec(compile(block, "library.md", "exec"), names)
    said = capsys.readouterr().out
    # Test slices of a stack lie beside training slices.
    assert said.startswith("warn\n")
    for shown in (
        "<Workspace ",
        "<Dataset cells: slices 10, labelled 10, test 2, train 8",
        "<FeatureSet cells-dinov2-small-random-0-84px-",
        "seed 0, protocol paper[head=bn-linear",
        "10 (6, 6, 384) (10, 384) 0\n",
        "(84, 84) uint8 float32",
    ):
        assert shown in said, shown
    assert len(names["runs"]) == 2  # type: ignore[arg-type]


@pytest.fixture
def cells(tmp_path: Path) -> emcache.Dataset:
    write_domain(tmp_path / "cells", STYLES["sharp"], slices=10, size=84, seed=3)
    workspace = emcache.Workspace.create(tmp_path / "work")
    return workspace.add_dataset("cells", "folder", tmp_path / "cells", **MASKED)


@pytest.fixture
def run(cells: emcache.Dataset) -> emcache.TrainedRun:
    protocol = emcache.Protocol(head="linear", learning_rate=0.01, max_epochs=2)
    (run,) = emcache.train(
        cells, backbone="tiny", weights="random:0", longest_edge=70, protocol=protocol
    )
    return run


def extracted(cells: emcache.Dataset) -> emcache.FeatureSet:
    return emcache.extract(cells, "tiny", weights="random:0", longest_edge=70)


def test_tokens_and_masks_stand_beside_their_slices(cells: emcache.Dataset) -> None:
    tokens = extracted(cells)
    assert len(tokens) == len(cells) == 10
    alone = emcache.TokenDataset(tokens)
    assert len(alone) == 10
    stored = torch.from_numpy(tokens.tokens(3).astype(np.float32)).permute(2, 0, 1)
    assert torch.equal(alone[3], stored)
    test = emcache.TokenDataset(tokens, cells, "test")
    assert [tokens.slices[place].id for place in test.positions] == [
        item.id for item in cells.select("test")
    ]
    for index, item in enumerate(cells.select("test")):
        values, mask = test[index]
        assert item.mask is not None
        whole = Image.open(item.mask.path).resize((70, 70), Image.Resampling.NEAREST)
        assert np.array_equal(mask.numpy() > 0, np.asarray(whole) >= 128)
        assert torch.equal(values, alone[test.positions[index]])
    with pytest.raises(IndexError):
        test[len(test)]


def test_tokens_of_other_slices_and_a_split_of_nothing(
    cells: emcache.Dataset, tmp_path: Path
) -> None:
    tokens = extracted(cells)
    write_domain(tmp_path / "other", STYLES["soft"], slices=8, size=84, seed=4)
    other = cells.workspace.add_dataset("other", "folder", tmp_path / "other", **MASKED)
    with pytest.raises(StoreError, match="which other does not hold"):
        emcache.TokenDataset(tokens, other)
    with pytest.raises(UsageError, match="tokens alone have no split 'test'"):
        emcache.TokenDataset(tokens, split="test")


def test_a_prediction_on_an_array_is_that_of_the_command(
    run: emcache.TrainedRun, tmp_path: Path
) -> None:
    from emcache.evaluation.predict import PredictionOptions, predict
    from emcache.progress import Quiet

    path = tmp_path / "cells/images/0.png"
    out = tmp_path / "out"
    predict(run.workspace.place, run.id, [path], out, PredictionOptions(), Quiet())
    written = out / "0.png"
    found = run.predict(np.asarray(Image.open(path)))
    assert np.array_equal(found.mask, np.asarray(Image.open(written)))
    with pytest.raises(ImageError, match="values of type uint16"):
        run.predict(np.zeros((84, 84), np.uint16))
    deep = run.predict(np.asarray(Image.open(path)).astype(np.uint16), grey_window=(0, 255))
    assert np.array_equal(deep.mask, found.mask)


def test_scores_are_those_of_the_warehouse(run: emcache.TrainedRun) -> None:
    from emcache_warehouse import connect

    (row,) = run.scores.filter(pl.col("split") == "test").rows(named=True)
    question = "select n_slices, iou_fg from run_metrics where split = 'test'"
    assert connect(run.workspace.root).query(question).rows() == [(row["n_slices"], row["iou"])]
    again = emcache.TrainedRun.open(run.workspace, run.id)
    assert [found.id for found in run.workspace.runs()] == [again.id] == [run.id]
    with pytest.raises(RecordError, match="there is no run 'none'"):
        emcache.TrainedRun.open(run.workspace, "none")


def test_runs_with_adapters_need_a_backbone(cells: emcache.Dataset) -> None:
    protocol = emcache.Protocol(head="linear", learning_rate=0.01, max_epochs=1)
    with pytest.raises(UsageError, match="a backbone that is trained must be named"):
        emcache.train(cells, regime="lora", protocol=protocol)
    with pytest.raises(UsageError, match="there is no regime 'frosen'"):
        emcache.train(cells, regime="frosen", protocol=protocol)
    with pytest.raises(UsageError, match="no dataset to train on"):
        emcache.train([])
    (run,) = emcache.train(
        cells,
        regime="lora",
        backbone="tiny",
        weights="random:0",
        longest_edge=70,
        protocol=protocol,
    )
    assert run.config["regime"] == "lora"


def test_a_few_points_make_a_run(cells: emcache.Dataset, tmp_path: Path) -> None:
    item = next(item for item in cells.data.labelled if item.split == "train")
    points = tmp_path / "points.csv"
    points.write_text(f"slice,row,col,label\n{item.id},3,4,foreground\n")
    options = {"backbone": "tiny", "weights": "random:0", "longest_edge": 70}
    (drawn,) = emcache.train(cells, regime="few-label", **options)
    assert drawn.config["protocol"] == "few-label"
    (own,) = emcache.train(cells, regime="few-label", annotations=points, **options)
    assert own.config["labelled_pixels"] == 1
    assert own.predict(np.zeros((84, 84), np.uint8)).mask.shape == (84, 84)


def test_what_objects_say_in_a_notebook_is_escaped(cells: emcache.Dataset) -> None:
    shown = cells._repr_html_()
    assert "<strong>Dataset cells</strong>" in shown
    cells.data = cells.data.__class__(
        **{
            field: "<b>" if field == "name" else getattr(cells.data, field)
            for field in cells.data.__dataclass_fields__
        }
    )
    assert "&lt;b&gt;" in cells._repr_html_()


def test_a_study_may_name_weights_by_their_short_name(
    cells: emcache.Dataset, tmp_path: Path
) -> None:
    config = cells.workspace.place.config_path
    gone = tmp_path / "gone.pth"
    config.write_text(
        f'{config.read_text()}\n[weights.mine]\npath = "{gone}"\nsha256 = "{"0" * 64}"\n'
    )
    study = tmp_path / "study.toml"
    study.write_text('[[grid]]\nbackbones = ["dinov2-small"]\ntrain_on = ["cells"]\nseeds = "0"\n')
    (row,) = emcache.run_study(cells.workspace, study, weights="mine").rows(named=True)
    assert row["done"] == 0
    assert "gone.pth" in row["problem"]
