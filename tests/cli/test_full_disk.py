"""Disk full, folder read-only, no permission: a sentence, and nothing half-done."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from emcache.leftovers import find_leftovers

TINY = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "56")
PLACES = ("--images", "images/*.png", "--masks", "masks/*.png")
COMMANDS = {
    "dataset add": ("dataset", "add", "more", "--layout", "folder", "--root", "cells", *PLACES),
    "extract": ("extract", "cells", *TINY),
    "train-head": ("train-head", "cells", *TINY, "--seeds", "0", "--epochs", "2"),
    "sync": ("warehouse", "sync"),
    "rebuild": ("warehouse", "rebuild"),
}


@pytest.fixture
def place(run, cells_root) -> Path:
    """A workspace in the current folder with a dataset of which nothing is extracted."""
    run("init", ".")
    options = ("--images", "images/*.png", "--masks", "masks/*.png")
    root = cells_root
    assert run("dataset", "add", "cells", "--layout", "folder", "--root", root, *options).code == 0
    return root.parent


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_done(
    name, after, run, place, monkeypatch
):
    """The disk is full from the so many-th flush on, which is where a file is written for good."""
    arguments = list(COMMANDS[name])
    before = _records(place)
    real, flushes = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal flushes
        flushes += 1
        if flushes > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        broken = run(*arguments)
    if flushes <= after:
        assert broken.code == 0
        return
    assert broken.code == 2, broken
    assert "Traceback" not in broken.err
    assert "No space left on device" in broken.err
    # Whatever is there is whole: the same command works, and so does looking.
    assert all((place / "runs" / name / "record.json").exists() for name in _records(place))
    assert _records(place) >= before
    assert run(*arguments).code == 0
    assert run("warehouse", "sync").code == 0
    assert run("warehouse", "check").code == 0
    assert not [item for item in find_leftovers(_workspace(place)) if item.lock is not None]


def _records(place: Path) -> set[str]:
    runs = place / "runs"
    return {path.name for path in runs.iterdir() if path.name[0] != "."} if runs.is_dir() else set()


def _workspace(place: Path):
    from emcache.workspace import find_workspace

    return find_workspace(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written(run, place):
    (place / "runs").chmod(0o500)
    try:
        result = run(*COMMANDS["extract"])
        assert result.code == 2
        assert "Permission denied" in result.err
        assert "Traceback" not in result.err
    finally:
        (place / "runs").chmod(0o700)
