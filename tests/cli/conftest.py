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


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``emcache`` with arguments in a folder, through the entry point of the console script.

    In this process, since importing torch anew for each command would take minutes; what needs a
    process of its own (signals, terminals, start-up time) starts one.
    """
    monkeypatch.delenv("EMCACHE_WORKSPACE", raising=False)

    def run_command(*arguments: object, cwd: Path = tmp_path, text: str = "") -> Result:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        code: object = 0
        with monkeypatch.context() as patch:
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
