"""emcache in napari: its manifest, paths that are dropped on it, and ``emcache napari``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from emcache_bench.synthetic import STYLES, write_domain

from emcache import Workspace
from emcache.views.napari_reader import LazyColours, get_reader

TINY = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "84")
SHORT = ("--seeds", "0", "--epochs", "2", "--learning-rate", "1e-2", "--head", "linear")


@pytest.fixture(scope="module")
def root(tmp_path_factory, run_anywhere) -> Path:
    """A workspace with features, a run, and a folder that it predicted into."""
    folder = tmp_path_factory.mktemp("napari")
    write_domain(folder / "cells", STYLES["sharp"], slices=4, size=84, seed=3)

    def run(*words: str) -> None:
        done = run_anywhere(*words, cwd=folder)
        assert done.code == 0, done

    globs = ("--images", "images/*.png", "--masks", "masks/*.png", "--voxel-size", "50,4,5")
    split = ("--split", "random:0.5:0")
    for words in (
        ("init", "."),
        ("dataset", "add", "cells", "--layout", "folder", "--root", "cells", *globs, *split),
        ("train-head", "cells", *TINY, *SHORT),
    ):
        run(*words)
    name = Workspace.open(folder).runs()[0].id
    run("predict", name, "cells/images", "--out", "masks", "--probabilities")
    return folder


def feature_folder(root: Path) -> Path:
    return Workspace.open(root).feature_sets()[0].folder


def test_a_feature_set_is_read_slice_by_slice(root):
    reader = get_reader(str(feature_folder(root)))
    ((values, about, kind),) = reader(str(feature_folder(root)))
    assert isinstance(values, LazyColours)
    assert (values.shape, values.dtype, values.ndim) == ((4, 6, 6, 3), np.uint8, 4)
    assert (kind, about["rgb"], about["scale"]) == ("image", True, (1.0, 14.0, 14.0))
    whole = np.asarray(values)
    assert whole.shape == values.shape
    for key in (0, -1, slice(1, 3), (2, slice(None), 3), (slice(0, 2), 1), Ellipsis, [0, 2]):
        np.testing.assert_array_equal(values[key], whole[key], err_msg=str(key))
    assert about["metadata"]["slices"] == [
        item.id for item in Workspace.open(root).feature_sets()[0].slices
    ]


def test_predictions_are_labels_and_probabilities(root):
    layers = get_reader(str(root / "masks"))(str(root / "masks"))
    kinds = [kind for _, _, kind in layers]
    assert kinds == ["labels"] * 4 + ["image"] * 4
    masks, chances = layers[:4], layers[4:]
    for (mask, about, _), (chance, of, _) in zip(masks, chances, strict=True):
        assert of["name"] == f"{about['name']}: p"
        assert mask.shape == chance.shape == (84, 84)
        assert ((mask > 0) == (chance > 0.5)).mean() > 0.99


def test_other_things_are_for_other_plugins(root):
    for path in (str(root), str(root / "cells"), str(root / "emcache.toml"), "nowhere", ["a", "b"]):
        assert get_reader(path) is None


def test_the_command_makes_a_layer_of_everything(root, monkeypatch, run_anywhere):
    made = []
    fake = SimpleNamespace(
        Viewer=lambda title: SimpleNamespace(add_layer=made.append),
        layers=SimpleNamespace(Layer=SimpleNamespace(create=lambda *words: words)),
        run=lambda: made.append("run"),
    )
    monkeypatch.setitem(sys.modules, "napari", fake)
    name = Workspace.open(root).runs()[0].id
    done = run_anywhere("napari", "cells", "--run", name, cwd=root)
    assert done.code == 0, done
    *layers, last = made
    assert last == "run"
    names = [
        "cells",
        "cells: tokens",
        "cells: mask",
        f"cells: probability, {name}",
        f"cells: {name}",
    ]
    assert [about["name"] for _, about, _ in layers] == names
    assert [values.shape for values, _, _ in layers] == [
        (4, 84, 84), (4, 6, 6, 3), (4, 84, 84), (4, 84, 84), (4, 84, 84),
    ]  # fmt: skip
    # In nanometres: 4 a row and 5 a column. A token is 14 pixels wide, and its middle is 6.5 pixels
    # from that of its first pixel.
    assert layers[0][1]["scale"] == (1.0, 4.0, 5.0)
    assert layers[1][1]["scale"] == (1.0, 56.0, 70.0)
    assert layers[1][1]["translate"] == (0.0, 26.0, 32.5)


def test_without_napari_it_says_what_to_install(root, monkeypatch, run_anywhere):
    monkeypatch.setitem(sys.modules, "napari", None)
    done = run_anywhere("napari", "cells", cwd=root)
    assert done.code == 2
    assert "pip install 'emcache[napari]' PyQt6" in done.err


@pytest.mark.napari
def test_napari_opens_them(root, checkout):
    python = checkout / ".venv-napari-plugin" / "bin" / "python"
    if not python.exists():
        pytest.skip("napari is not installed (make test-napari)")
    (site,) = (checkout / ".venv").glob("lib/python*/site-packages")
    sources = [str(checkout / name) for name in ("src", "warehouse", "benchmarks", "cli")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sources, str(site)])}
    script = checkout / "tests" / "napari" / "open_them.py"
    done = subprocess.run(
        [python, script, feature_folder(root), root / "masks"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["plugin"] == "emcache"
    kinds = [layer["kind"] for layer in found["layers"]]
    assert kinds == ["Image", *["Labels"] * 4, *["Image"] * 4]
    assert found["layers"][0]["shape"] == [4, 6, 6, 3]
    assert found["layers"][0]["scale"][-2:] == [14.0, 14.0]
    assert found["layers"][0]["mean"] > 0
