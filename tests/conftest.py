"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from emcache.progress import Quiet

if TYPE_CHECKING:
    from emcache.storage.workspace import Workspace

# With `-n` this process runs no test: the others, which do, start when it is ready. So it imports
# none of this, and nothing of emcache before a fixture asks for it.
if "PYTEST_XDIST_WORKER" in os.environ or not any(word.startswith("-n") for word in sys.argv):
    # What is first imported from within emcache, jaxtyping's hook compiles anew in every process:
    # the large libraries come before it.
    import monai  # noqa: F401
    import peft  # noqa: F401
    import polars as pl  # noqa: F401
    import timm  # noqa: F401
    import torch  # noqa: F401
    import zarr  # noqa: F401

# The same cases each time, so that the same commit passes or fails each time; and new ones with
# every seed, for a suite that looks for what nobody has thought of.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("fresh", database=None, deadline=None)

ROOT = Path(__file__).parents[1]
# How often each kind of fault was tried, a line of JSON for each test, over all workers.
FAULTS_REPORT = "EMCACHE_FAULTS_REPORT"
# What all random choices of a run start from.
FAULTS_SEED = "EMCACHE_FAULTS_SEED"
# Nothing is below these where they are not set, so that what needs real things skips.
DATA = Path(os.environ.get("EMCACHE_TEST_DATA", os.devnull))
WEIGHTS = Path(os.environ.get("EMCACHE_TEST_WEIGHTS", os.devnull))
PRETRAINED = WEIGHTS / "dinov2_vits14_fp16.safetensors"


# First: Hypothesis's own hook takes the seed from the options.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for name in ("EMCACHE_TEST_DATA", "EMCACHE_TEST_WEIGHTS"):
        if name in os.environ and not Path(os.environ[name]).is_dir():
            # A wrong path would skip every test on real things, and all would look well.
            raise pytest.UsageError(f"{name} names {os.environ[name]!r}, which is not a folder")
    if is_full() and config.option.hypothesis_seed is None:
        # Drawn once: workers find it in the environment, which they have from the first process.
        drawn = str(secrets.randbelow(1 << 32))
        config.option.hypothesis_seed = os.environ.setdefault(FAULTS_SEED, drawn)
    settings.load_profile("same" if config.option.hypothesis_seed is None else "fresh")
    if not hasattr(config, "workerinput"):
        report = Path(os.environ.setdefault(FAULTS_REPORT, str(ROOT / "build" / "faults.jsonl")))
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)


def pytest_report_header(config: pytest.Config) -> str | None:
    # At the beginning as well: a process that is ended from without says nothing at the end.
    seed = config.option.hypothesis_seed
    return None if seed is None else f"seed {seed}: `make faults SEED={seed}` tries the same"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    report = Path(os.environ[FAULTS_REPORT])
    totals: Counter[str] = Counter()
    for line in report.read_text().splitlines() if report.exists() else []:
        totals.update({k: v for k, v in json.loads(line).items() if isinstance(v, int)})
    if totals:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(totals.items()))
        terminalreporter.write_line(f"faults: {counts}")
    if said := pytest_report_header(terminalreporter.config):
        terminalreporter.write_line(said)


def is_full() -> bool:
    """Whether faults are tried as often as `make faults` does."""
    return os.environ.get("EMCACHE_FAULTS") == "full"


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether faults are tried as often as `make faults` does."""
    return is_full()


@pytest.fixture(scope="session")
def chance(pytestconfig: pytest.Config) -> Callable[[str], random.Random]:
    """Random numbers for a purpose, by the seed of the whole run; always the same without one."""
    seed = pytestconfig.option.hypothesis_seed
    return lambda purpose: random.Random(f"{seed} {purpose}")


@pytest.fixture(scope="session")
def count() -> Callable[[str, int], None]:
    """Add to what the summary says of a kind of fault."""

    def add(kind: str, number: int) -> None:
        # One write of one line: workers append to the same file.
        with Path(os.environ[FAULTS_REPORT]).open("a") as report:
            report.write(json.dumps({kind: number}) + "\n")

    return add


class Listener(Quiet):
    """A reporter that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="session")
def checkout() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def vnc_root() -> Path:
    """The real VNC slices; a test that asks for them carries the mark ``real``."""
    if not (DATA / "vnc" / "stack1").is_dir():
        pytest.skip("the real EM slices are absent (set EMCACHE_TEST_DATA to their folder)")
    return DATA / "vnc"


@pytest.fixture(scope="session")
def pretrained_file() -> Path:
    """A DINOv2 ViT-S/14 checkpoint; a test that asks for it carries the mark ``weights``."""
    if not PRETRAINED.is_file():
        pytest.skip("the checkpoint is absent (set EMCACHE_TEST_WEIGHTS to its folder)")
    return PRETRAINED


@pytest.fixture(scope="session")
def lucchi_root() -> Path:
    """The real Lucchi++ slices, some of the released numbers; likewise."""
    if not (DATA / "lucchi++" / "Train_In").is_dir():
        pytest.skip("the real EM slices are absent (set EMCACHE_TEST_DATA to their folder)")
    return DATA / "lucchi++"


@pytest.fixture(scope="session")
def few_vnc_root(vnc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six of the real VNC slices with their masks, where what is shown holds for any number."""
    root = tmp_path_factory.mktemp("vnc")
    for kind in ("raw", "mitochondria"):
        (root / "stack1" / kind).mkdir(parents=True)
        for path in sorted((vnc_root / "stack1" / kind).iterdir())[:6]:
            shutil.copy(path, root / "stack1" / kind)
    return root


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    from emcache.storage.workspace import init_workspace

    return init_workspace(tmp_path / "workspace")[0]


@pytest.fixture
def cells_root(tmp_path: Path) -> Path:
    """Ten made-up slices of 84 x 84 pixels with masks."""
    from emcache_bench.synthetic import STYLES, write_domain

    root = tmp_path / "cells"
    write_domain(root, STYLES["sharp"], slices=10, size=84, seed=3)
    return root


@pytest.fixture
def cells(workspace: Workspace, cells_root: Path) -> Workspace:
    """A workspace with the made-up slices as dataset ``cells``."""
    from emcache.data.register import add_dataset

    options = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "cells", "folder", cells_root, options, Quiet())
    return workspace
