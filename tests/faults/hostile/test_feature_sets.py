"""Hostile feature sets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from emcache_bench.synthetic import STYLES, write_domain
from hostile import (
    as_json,
    attempt,
    cases,
    damaged,
    no_fields,
    replaced,
    sealed,
    twisted,
)
from hypothesis import given
from hypothesis import strategies as st

from emcache.cache.feature_set import FeatureSet, list_feature_sets
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection
from emcache.data.register import add_dataset
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace, init_workspace


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a feature set."""
    # Local: it imports what models need.
    from emcache.cache.extract import run_extraction

    place = tmp_path_factory.mktemp("features")
    write_domain(place / "cells", STYLES["sharp"], slices=6, size=56, seed=3)
    workspace = init_workspace(place / "w")[0]
    options = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "cells", "folder", place / "cells", options, Quiet())
    job = plan_extraction(
        workspace, Selection("cells", None), ExtractOptions("tiny", "random:0", 56), Quiet()
    )
    run_extraction(job, Quiet())
    return workspace


def use_features(folder: Path) -> None:
    found = FeatureSet.open(folder)
    _ = (found.fingerprint, found.token_bytes, found.name, found.description["backbone"])
    for position in range(min(len(found.slices), 2)):
        found.tokens(position)
    found.pooled()
    found.cls()


@cases(100, 900)
@given(data=st.data())
def test_feature_sets(features: Workspace, data: st.DataObject) -> None:
    (folder,) = (p for p in features.cache.iterdir() if p.is_dir())
    manifest = json.loads((folder / "manifest.json").read_bytes())
    which = data.draw(st.sampled_from(["manifest", "zarr", "shard", "bytes"]))
    files: dict[Path, bytes] = {}
    if which == "manifest":
        content = sealed(data.draw(twisted(manifest)))
    elif which == "bytes":
        _, content = data.draw(damaged({"m": (folder / "manifest.json").read_bytes()}, no_fields))
    else:
        names = [n for n in manifest["files"] if n.endswith("zarr.json") == (which == "zarr")]
        name = data.draw(st.sampled_from(names))
        old = (folder / name).read_bytes()
        if which == "zarr":
            new = as_json(data.draw(twisted(json.loads(old))))
        else:
            _, new = data.draw(damaged({name: old}, no_fields))
        digest = hashlib.sha256(new).hexdigest()
        manifest["files"][name] = {"bytes": len(new), "sha256": digest}
        files[folder / name] = new
        content = sealed(manifest)
    with replaced({**files, folder / "manifest.json": content}):
        attempt(
            "feature set",
            lambda: use_features(folder),
            lambda: list_feature_sets(features.cache),
        )
