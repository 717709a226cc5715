"""Running the command line as a user does."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from emcache_bench.synthetic import STYLES, write_domain

from emcache.data.register import add_dataset
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace, init_workspace
from emcache_cli.main import main


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def run_anywhere() -> Run:
    """Run ``emcache`` with arguments in a folder, through the entry point of the console script.

    In this process, since importing torch anew for each command would take minutes; what needs a
    process of its own (signals, terminals, start-up time) starts one.
    """

    def run_command(*arguments: object, cwd: Path, text: str = "") -> Result:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        code: object = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("EMCACHE_WORKSPACE", raising=False)
            patch.chdir(cwd)
            patch.setattr(sys, "argv", ["emcache", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.StringIO(text))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
            out.flush()
            err.flush()
        assert isinstance(code, int)
        said, told = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
        return Result(code, said, told)

    return run_command


@pytest.fixture
def run(tmp_path: Path, run_anywhere: Run) -> Run:
    """The same, in the test's own folder where no other is named."""
    return lambda *arguments, cwd=tmp_path, text="": run_anywhere(*arguments, cwd=cwd, text=text)


@pytest.fixture(scope="session")
def make_cells(run_anywhere: Run) -> Callable[..., Workspace]:
    """Make a workspace with ten made-up slices as dataset ``cells``, and run commands in it."""

    def make(folder: Path, *commands: tuple[str, ...]) -> Workspace:
        write_domain(folder / "cells", STYLES["sharp"], slices=10, size=84, seed=3)
        workspace = init_workspace(folder / "workspace")[0]
        options = {"images": "images/*.png", "masks": "masks/*.png"}
        add_dataset(workspace, "cells", "folder", folder / "cells", options, Quiet())
        for command in commands:
            result = run_anywhere(*command, cwd=workspace.root)
            assert result.code == 0, result
        return workspace

    return make


@pytest.fixture
def fails(run: Run) -> Run:
    """Run a command that a user got wrong: one sentence, exit code 2, no traceback."""

    def run_failing(*arguments: object, **keywords: Any) -> Result:
        result = run(*arguments, **keywords)
        assert result.code == 2, result
        assert result.out == ""
        assert "Traceback" not in result.err
        return result

    return run_failing


@pytest.fixture(scope="session")
def browser() -> str:
    """Headless Chromium; a test that asks for it carries the mark ``browser``."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Debian's chromium is absent (apt-get install chromium)")
    return path
