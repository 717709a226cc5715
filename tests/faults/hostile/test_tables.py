"""Hostile ``emcache.toml``, studies, and options as they are typed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tifffile
import tomlkit
from emcache_bench.synthetic import STYLES, write_domain
from hostile import (
    DEEP,
    PARAMETERS,
    STACK,
    attempt,
    cases,
    damaged,
    twisted,
)
from hypothesis import given
from hypothesis import strategies as st

from emcache.data.classes import parse_classes
from emcache.data.dataset import Selection, list_dataset, load_dataset
from emcache.data.listing import glob_images, locate
from emcache.data.splits import assign_splits, read_split_lists
from emcache.data.volumes.open import open_volume
from emcache.errors import EmcacheError
from emcache.evaluation.trained_run import find_run
from emcache.models.backbones.registry import TINY
from emcache.models.loading import list_weights
from emcache.models.weights import find_weights, find_workspace_weights
from emcache.storage.file_index import open_file_index
from emcache.storage.workspace import Workspace, init_workspace
from emcache.studies.file import read_study
from emcache.training.numbers import parse_seeds

TABLES = {
    "datasets": {
        "cells": {
            "layout": "folder",
            "root": "cells",
            "images": "images/*.png",
            "masks": "masks/*.png",
            "pair": "stem",
            "split": ["random:0.3:42"],
            "voxel_size_nm": [40.0, 4.0, 4.0],
            "classes": {"background": [0], "mitochondria": [255]},
        },
        "volume": {
            "layout": "stack",
            "root": "cells",
            "images": "volume.tif",
            "masks": "volume.zarr:/a/b",
            "axis": "y",
            "split": {"train": ["0", "1"], "test": ["2"]},
            "mask_threshold": 1,
            "grey_window": [0.0, 99.0],
        },
        "other": {"layout": "lucchi++", "root": "/nowhere"},
    },
    "weights": {"one": {"path": "one.pth", "sha256": "0" * 64}},
}


STUDY = {
    "name": "sizes",
    "grid": [
        {
            "backbones": ["tiny", "dinov2-small"],
            "regimes": ["frozen", "lora"],
            "train_on": ["vnc", ["lucchi++", "vnc"]],
            "seeds": "0-4",
            "sampling": ["natural"],
            "weights": {"tiny": "random:0", "dinov2-small": "small.pth"},
            "longest_edge": 1022,
            "pixel_size_nm": 8.0,
            "precision": "auto",
            "dtype": "float16",
            "accumulate": 1,
            "checkpoint": False,
            "accept_audit": False,
            "evaluate_on": ["lucchi++"],
            "protocol": {"name": "paper", "max_epochs": 3, "lora_rank": 4},
        }
    ],
}


LINES = [
    "a = " + "[" * 5000 + "]" * 5000,
    "a = " + "{b = " * 3000 + "1" + "}" * 3000,
    "a" + ".a" * 20_000 + " = 1",
    "a = " + "9" * 6000,
    "a = 0x" + "f" * 6000,
    "longest_edge = 0x" + "f" * 6000,
    "a = 1e999999999",
    "a = 1979-13-45T99:99:99Z",
    "a = 07:32:00",
    'a = "\\u0000"',
    'a = "\\ud800"',
    "a = 1\na = 2",
    "[datasets]\n[datasets]",
    "[[datasets]]",
    "[datasets.cells.x.y.z]\na = 1",
    "datasets.cells = 3",
    "[datasets.'']",
    '[datasets."../x"]\nlayout = "vnc"\nroot = "."',
    '[datasets.cells2]\nlayout = "folder"\nroot = "cells"\nimages = "' + "**/" * 1500 + '*.png"',
    '[datasets.cells2]\nlayout = "folder"\nroot = "cells"\nimages = "."',
    '[datasets.cells2]\nlayout = "folder"\nroot = "cells"\nimages = "../../**/*.png"',
    '[datasets.cells2]\nlayout = "folder"\nroot = "' + "x/" * 3000 + '"',
    '[datasets.cells2]\nlayout = "folder"\nroot = "' + "x" * 300 + '"',
    '[datasets.cells2]\nlayout = "stack"\nroot = "cells"\nimages = "a\\u0000b"',
    '[datasets.cells2]\nlayout = "stack"\nroot = "cells"\nimages = "/etc/passwd"',
    '[datasets.cells2]\nlayout = "stack"\nroot = "cells"\nimages = "' + "x" * 300 + '.tif"',
    '[datasets.cells2]\nlayout = "stack"\nroot = "cells"\nimages = "images/0.png:/../../x"',
    "\ufeff[datasets]",
    "grid = [{}]",
    "[[grid]]\n" * 3,
    "[[grid]]\nbackbones = ["
    + "'tiny'," * 3000
    + "]\ntrain_on = ["
    + ",".join(f"'d{i}'" for i in range(3000))
    + "]\nseeds = '0-4'",
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '" + "9" * 5000 + "'",
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = 0x" + "f" * 5000,
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '0'\npixel_size_nm = 0x" + "f" * 500,
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '0'\npixel_size_nm = inf",
    "[[grid]]\nbackbones = ['timm:\\u0000']\ntrain_on = ['a']\nseeds = '0'",
    "[[grid]]\nbackbones = ['" + "x" * 9000 + "']\ntrain_on = ['a']\nseeds = '0'",
    '[[grid]]\nbackbones = ["tiny"]\ntrain_on = ["a"]\nseeds = "0"\nweights = "a\\u0000"',
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '0'\nweights = '"
    + "x/" * 3000
    + "'",
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '0'\n[grid.protocol]\nbatch = 0x"
    + "f" * 500,
]


def as_toml(value: Any) -> bytes | None:
    """TOML of a twisted value; None where TOML has no such thing."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(part) for key, part in item.items() if part is not None}
        if isinstance(item, list):
            return [plain(part) for part in item if part is not None]
        return item

    try:
        return tomlkit.dumps(plain(value)).replace(DEEP, "deep").encode()
    except (ValueError, TypeError, RecursionError, tomlkit.exceptions.TOMLKitError):
        return None


@st.composite
def toml_texts(draw: st.DrawFn, table: dict[str, Any]) -> bytes:
    base = as_toml(table)
    assert base is not None
    match draw(st.sampled_from(["twisted"] * 5 + ["damaged", "line"])):
        case "damaged":
            return draw(damaged({"toml": base}, lambda _: []))[1]
        case "line":
            line = draw(st.sampled_from(LINES)).encode()
            return draw(st.sampled_from([line, base + b"\n" + line, line + b"\n" + base]))
        case _:
            return as_toml(draw(twisted(table))) or base


@pytest.fixture(scope="module")
def configured(place: Path) -> Workspace:
    workspace = init_workspace(place / "configured")[0]
    write_domain(workspace.root / "cells", STYLES["sharp"], slices=5, size=28, seed=3)
    tifffile.imwrite(workspace.root / "cells" / "volume.tif", STACK, photometric="minisblack")
    return workspace


def use_datasets(workspace: Workspace) -> None:
    for name in workspace.dataset_names():
        use_dataset(workspace, name)


def use_dataset(workspace: Workspace, name: str) -> None:
    with suppress(EmcacheError):
        options = workspace.dataset_options(name)
        list_dataset(name, options, workspace.root, open_file_index(workspace))
        load_dataset(workspace, name)


@cases(60, 500)
@given(text=toml_texts(TABLES))
def test_emcache_toml(configured: Workspace, text: bytes) -> None:
    configured.config_path.write_bytes(text)
    options = {"layout": "vnc", "root": "x"}
    attempt(
        "emcache.toml",
        lambda: use_datasets(configured),
        lambda: load_dataset(configured, "volume"),
        lambda: find_workspace_weights(configured, "one", TINY),
        lambda: list_weights(configured),
        lambda: configured.add_weights("two", {"path": "two.pth", "sha256": "1" * 64}),
        lambda: configured.add_dataset("another", options),
    )


def use_study(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    attempt("study", lambda: [cell.words for cell in read_study(path).cells])


@cases(60, 500)
@given(text=toml_texts(STUDY))
def test_studies(place: Path, text: bytes) -> None:
    use_study(place / "study.toml", text)


def test_every_line_as_a_study(place: Path) -> None:
    for line in LINES:
        use_study(place / "study.toml", line.encode())


@cases(100, 800)
@given(text=PARAMETERS, other=PARAMETERS)
def test_options_as_typed(configured: Workspace, text: str, other: str) -> None:
    ids = ["a", "b", "c", "0", "1"]
    root = configured.root / "cells"
    index = open_file_index(configured)
    attempt(
        "option",
        lambda: parse_classes([text, other]),
        lambda: parse_seeds(text),
        lambda: Selection.parse(text),
        lambda: assign_splits(ids, [text]),
        lambda: assign_splits(ids, [text, other]),
        lambda: assign_splits(ids, read_split_lists([text, other])),
        lambda: glob_images(root, text),
        lambda: locate(root, text),
        lambda: find_run(configured, text),
        lambda: find_weights(text, TINY, index),
        lambda: open_volume(root / text.lstrip("/"), other),
    )
