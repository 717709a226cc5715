"""What a user gets wrong is answered in one sentence, with exit code 2 and nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import TINY
from emcache.storage.hashing import json_sha256
from emcache.storage.workspace import Workspace

TINY_OPTIONS = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "70")


def files(folder: Path) -> dict[str, bytes]:
    """Every file but the memory of what files hold, which may grow at any time."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "files.json" and path.suffix != ".lock"
    }


ADD_STACK = ("dataset", "add", "n", "--layout", "stack", "--root", ".")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("extract", "cell", *TINY_OPTIONS), "there is no dataset 'cell'"),
        (("extract", "cells", "--backbone", "dinov2-smal"), "did you mean dinov2-small?"),
        (("extract", "cells:val", *TINY_OPTIONS), "has no split 'val'"),
        (
            ("extract", "cells", *TINY_OPTIONS[:4], "--longest-edge", "9"),
            "nearest valid size is 14",
        ),
        (("extract", "cells", "--backbone", "tiny"), "no pretrained weights of tiny"),
        (
            ("extract", "cells", "--backbone", "tiny", "--weights", "no.pth"),
            "no weights file no.pth",
        ),
        (("extract", "cells", *TINY_OPTIONS, "--device", "tpu"), "there is no device 'tpu'"),
        (("extract", "cells", *TINY_OPTIONS, "--precision", "int8"), "unknown precision 'int8'"),
        (("train-head", "cells"), "no backbone was named"),
        (("train-head", "cells", "--seeds", "0,0"), "names seed 0 twice"),
        (("train-head", "cells", "--seeds", "x"), "cannot be read"),
        (("train-head", "cells", "--seeds", "9" * 25), "goes too far"),
        (("extract", "cells", *TINY_OPTIONS[:3], "random:" + "9" * 25), "random:SEED"),
        (("extract", "cells", *TINY_OPTIONS, "--device", "cpu:x"), "'cpu:x' is not a device"),
        (("train-head", "cells", "--protocol", "papr"), "no protocol 'papr'"),
        (("query", "select foo from runs"), 'column "foo" not found'),
        (("query", "selec 1"), "LINE 1: selec 1\n        ^"),
        (("query",), "neither SQL nor --name"),
        (("query", "--name", "leaderbord"), "did you mean leaderboard?"),
        (("query", "select $a", "-p", "a"), "expected -p KEY=VALUE"),
        (("query", "drop table runs"), "read-only"),
        (("query", "copy runs to 'x.csv'"), "emcache query --unsafe"),
        (("query", "--name", "leaderboard", "--unsafe"), "leave --unsafe out"),
        (("query", "select 1 as a", "--chart", "bar"), "missing: -x COL, -y COL, --out"),
        (("query", "select 1 as a", "--chart", "bar", "-x", "b", "-y", "a", "--out", "x.png"), "b"),
        (("query", "select 1 as a", "--out", "x.doc"), ".doc"),
        (("query", "select 1 as a", "--out", "no/x.csv"), "cannot be written"),
        (("chart", "iou", "--out", "x.png"), "train-head"),
        (("dataset", "show", "cell"), "there is no dataset 'cell'"),
        (("dataset", "add", "a:b", "--layout", "vnc", "--root", "."), "cannot name a dataset"),
        (
            ("dataset", "add", "n", "--layout", "vnc", "--root", "nowhere"),
            "nowhere is not a folder",
        ),
        (("dataset", "add", "n", "--layout", "vnc", "--root", "."), "holds no stack1/raw/*.tif"),
        (("dataset", "add", "n", "--layout", "stack", "--root", "."), "needs the file of the"),
        ((*ADD_STACK, "--images", "gone.tif"), "gone.tif is not there"),
        ((*ADD_STACK, "--images", "../a.tif"), "leaves the root"),
        ((*ADD_STACK, "--images", "a.tif", "--grey-window", "9,3"), "--grey-window '9,3'"),
        ((*ADD_STACK, "--images", "a.tif", "--classes", "a", "b=1"), "class 'a' cannot be read"),
        ((*ADD_STACK, "--images", "a.tif", "--split", "train=@gone"), "list gone of split train"),
        (("demo", "."), "holds something already"),
        (("demo", "new", "--weights", "gone.pth"), "there is no weights file gone.pth"),
        (("demo", "new", "--backbone", "dinov9"), "there is no backbone 'dinov9'"),
        (("extrct",), "Did you mean 'extract'"),
        (("extract", "cells", "--backbon", "tiny"), "--backbon"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_one_sentence(cells: Workspace, fails, arguments: tuple[str, ...], said: str) -> None:
    before = files(cells.root)
    result = fails(*arguments, cwd=cells.root)
    assert said in " ".join(result.err.split("│")) or said in result.err
    after = files(cells.root)
    # A query may bring the warehouse up to date before it fails.
    after.pop("warehouse.duckdb", None)
    assert after == before


def test_no_workspace(fails, tmp_path: Path) -> None:
    for command in (("dataset", "list"), ("query", "select 1"), ("extract", "x", *TINY_OPTIONS)):
        assert "is a workspace" in fails(*command, cwd=tmp_path).err
    assert "is not a workspace" in fails("dataset", "list", "--workspace", tmp_path / "no").err


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda r: (r / "masks/3.png").unlink(), "image images/3.png without a mask"),
        (lambda r: (r / "images/3.png").unlink(), "mask masks/3.png without an image"),
        (lambda r: Image.new("L", (9, 9)).save(r / "masks/3.png"), "is 9 x 9 pixels"),
        (lambda r: (r / "images/3.png").write_bytes(b""), "images/3.png is empty"),
        (lambda r: (r / "images/3.png").write_bytes(b"x" * 99), "images/3.png is not an image"),
    ],
)
def test_a_dataset_that_broke_since(
    cells: Workspace, cells_root: Path, fails, damage: Callable[[Path], object], said: str
) -> None:
    damage(cells_root)
    for command in ("extract", "train-head"):
        assert said in fails(command, "cells", *TINY_OPTIONS, cwd=cells.root).err
    assert not any(path.is_dir() for path in cells.cache.iterdir())


def test_weights_that_do_not_fit(cells: Workspace, fails, tmp_path: Path) -> None:
    state = random_backbone(TINY, 0).model.state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    err = fails(
        "extract",
        "cells",
        "--backbone",
        "tiny",
        "--weights",
        tmp_path / "w.pth",
        "--longest-edge",
        "70",
        cwd=cells.root,
    ).err
    assert err.count("is missing") == 3
    assert not any(path.is_dir() for path in cells.cache.iterdir())


def test_places_that_are_in_the_way(cells: Workspace, fails) -> None:
    cells.runs.rename(cells.root / "elsewhere")
    cells.runs.touch()
    assert "runs" in fails("extract", "cells", *TINY_OPTIONS, cwd=cells.root).err


def test_a_feature_set_of_a_newer_format(cells: Workspace, run, fails) -> None:
    assert run("extract", "cells", *TINY_OPTIONS, cwd=cells.root).code == 0
    (manifest,) = cells.cache.glob("*/manifest.json")
    content = json.loads(manifest.read_text())
    del content["sha256"]
    content["format"] = 9
    content["sha256"] = json_sha256(content)
    manifest.write_text(json.dumps(content))
    err = fails("train-head", "cells", cwd=cells.root).err
    assert "has format 9, this emcache reads up to 1; upgrade emcache" in err
