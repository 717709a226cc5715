"""Disk full, folder read-only, no permission: a sentence, and nothing half-done."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from emcache_bench.synthetic import STYLES, write_domain

from emcache.maintenance.prune import find_leftovers

TINY = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "56")
PLACES = ("--images", "images/*.png", "--masks", "masks/*.png")
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2
COMMANDS = {
    "dataset add": ("dataset", "add", "more", "--layout", "folder", "--root", "cells", *PLACES),
    "extract": ("extract", "cells", *TINY),
    "train-head": (
        "train-head",
        "cells",
        *TINY,
        "--seeds",
        "0",
        "--epochs",
        "2",
        "--head",
        "linear",
    ),
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
@pytest.mark.parametrize("after", [0, pytest.param(1, marks=pytest.mark.slow), 3])
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
    from emcache.storage.workspace import find_workspace

    return find_workspace(place)


class _Capabilities(ctypes.Structure):
    """``struct __user_cap_data_struct`` of Linux: capabilities 0 to 31, then 32 and up."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


@pytest.fixture
def as_anyone() -> Callable[[], AbstractContextManager[None]]:
    """Root, as whom tests may run, without what lets it write everywhere."""
    if os.geteuid() != 0:
        return nullcontext
    if sys.platform != "linux":
        pytest.skip("root may write everywhere")
    libc = ctypes.CDLL(None, use_errno=True)
    # Version 3 of the interface, this thread.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (_Capabilities * 2)()
    if libc.capget(header, sets) != 0:
        pytest.skip("this system tells nobody's capabilities, and root may write everywhere")

    @contextmanager
    def lessened() -> Iterator[None]:
        before = sets[0].effective
        sets[0].effective = before & ~(_DAC_OVERRIDE | _DAC_READ_SEARCH)
        assert libc.capset(header, sets) == 0
        try:
            yield
        finally:
            sets[0].effective = before
            assert libc.capset(header, sets) == 0

    return lessened


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("dataset add", "."),
        ("dataset add", "runs"),
        ("extract", "cache"),
        ("extract", "runs"),
        ("train-head", "cache"),
        ("train-head", "runs"),
        ("sync", "."),
        ("rebuild", "."),
    ],
)
def test_a_folder_that_cannot_be_written(name, folder, run, tmp_path, as_anyone):
    """One sentence that names the place, and the same command works once the place is open."""
    place = tmp_path / "w"
    cells = place / "cells"
    write_domain(cells, STYLES["sharp"], slices=6, size=84, seed=3)
    assert run("init", ".", cwd=place).code == 0
    (place / "cache").mkdir()
    added = ("dataset", "add", "cells", "--layout", "folder", "--root", "cells", *PLACES)
    assert run(*added, cwd=place).code == 0
    before = _records(place)
    closed = place / folder
    closed.chmod(0o500)
    try:
        with as_anyone():
            broken = run(*COMMANDS[name], cwd=place)
    finally:
        closed.chmod(0o755)
    assert broken.code == 2, broken
    assert "Permission denied" in broken.err
    assert "Traceback" not in broken.err
    # The audit of the pairing comes first, and is done once and for all.
    assert {name for name in _records(place) - before if "-audit-" not in name} == set()
    assert run(*COMMANDS[name], cwd=place).code == 0
