"""Workspaces of made-up slices, and a real SLURM on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import run
from emcache_bench.synthetic import STYLES, write_domain
from slurm import running_slurm


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with 140 made-up slices, whose tokens of the tiny backbone fill three shards."""
    return make_workspace(tmp_path / "workspace")


def make_workspace(folder: Path) -> Path:
    folder.mkdir()
    write_domain(folder / "slices", STYLES["sharp"], slices=140, size=28, seed=0)
    run(folder, "init", ".")
    files = ["--images", "images/*.png", "--masks", "masks/*.png"]
    run(folder, "dataset", "add", "cells", "--layout", "folder", "--root", "slices", *files)
    return folder


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a SLURM of one node."""
    with running_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment
