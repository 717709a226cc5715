"""``emcache doctor`` as a user sees it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emcache.findings import Finding, Verdict
from emcache.storage.workspace import Workspace, find_workspace
from emcache_cli.diagnosis import as_lines

TINY = ("--backbone", "tiny", "--weights", "random:0", "--longest-edge", "70")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub is asked, and none of its weights are here."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def verdicts(result) -> dict[str, str]:
    """The gravest verdict of every name."""
    order = ("pass", "warn", "fail")
    found: dict[str, str] = {}
    for row in result.json:
        found[row["name"]] = max(found.get(row["name"], "pass"), row["verdict"], key=order.index)
    return found


@pytest.fixture(scope="module")
def trained_once(make_cells, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    train = ("train-head", "cells", "--seeds", "0", "--epochs", "1", "--head", "linear")
    commands = (("extract", "cells", *TINY), train, ("warehouse", "sync"))
    return make_cells(tmp_path_factory.mktemp("trained"), *commands)


@pytest.fixture
def trained(trained_once: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with features, a run, and a warehouse: a copy."""
    return find_workspace(shutil.copytree(trained_once.root, tmp_path / "workspace"))


def test_outside_a_workspace(run, tmp_path: Path) -> None:
    result = run("doctor", cwd=tmp_path)
    assert result.code == 0, result
    found = verdicts(result)
    assert found["workspace"] == "warn"
    assert {"packages", "device", "memory", "hub", "weights", "disk"} <= found.keys()
    assert "cache" not in found
    for row in result.json:
        assert list(row) == ["name", "verdict", "message", "remedy"]
        assert row["remedy"] or row["verdict"] == "pass"
    assert " warn, 0 fail." in result.err


def test_a_sound_workspace_and_every_format(run, trained: Workspace) -> None:
    for options in ((), ("--thorough",)):
        found = verdicts(run("doctor", *options, cwd=trained.root))
        del found["hub"], found["weights"], found["memory"], found["disk"], found["device"]
        assert set(found.values()) == {"pass"}
    table = run("doctor", "--format", "table", cwd=trained.root)
    assert table.out.splitlines()[0].split() == ["verdict", "name", "message", "remedy"]
    assert {line.split()[0] for line in table.out.splitlines()[2:]} <= {"PASS", "WARN", "FAIL"}
    assert run("doctor", "--format", "csv", cwd=trained.root).out.startswith("name,verdict,")


def test_what_it_names_mends_what_it_found(run, trained: Workspace) -> None:
    next(trained.cache.glob("*/grids/*/tokens/c/0/0/0/0")).unlink()
    trained.warehouse.write_bytes(b"x" * 9000)
    result = run("doctor", cwd=trained.root)
    assert result.code == 1
    assert "Traceback" not in result.err
    failed = [row for row in result.json if row["verdict"] == "fail"]
    assert sorted(row["name"] for row in failed) == ["cache", "warehouse"]
    for row in failed:
        command = row["remedy"].split("`")[1].split()
        assert command[0] == "emcache"
        fixed = run(*command[1:], cwd=trained.root)
        assert fixed.code == 0, fixed
    assert run("doctor", "--thorough", cwd=trained.root).code == 0


@pytest.mark.parametrize("content", [b"[datasets", b"\xff\xfe", b""])
def test_settings_in_any_state(run, trained: Workspace, content: bytes) -> None:
    trained.config_path.write_bytes(content)
    result = run("doctor", cwd=trained.root)
    assert result.code == (1 if content else 0)
    found = verdicts(result)
    assert found["workspace"] == ("fail" if content else "pass")
    assert found["cache"] == found["records"] == found["warehouse"] == "pass"


def test_a_workspace_that_is_not_there(run, tmp_path: Path) -> None:
    result = run("doctor", "--workspace", tmp_path / "nowhere")
    assert result.code == 1
    assert verdicts(result)["workspace"] == "fail"


def test_on_a_terminal_each_finding_is_a_line_and_its_remedy_the_next() -> None:
    findings = [
        Finding("disk", Verdict.PASS, "Much is free."),
        Finding("hub", Verdict.WARN, "It is out of reach, as it was before.", "use `--weights`"),
    ]
    assert list(as_lines(findings, 40)) == [
        "PASS  disk  Much is free.",
        "WARN  hub   It is out of reach, as it",
        "            was before.",
        "            -> use `--weights`",
    ]


WITHOUT_PACKAGES = """
import sys
sys.modules["polars"] = sys.modules["duckdb"] = None
sys.argv = ["emcache", "doctor", "--format", "table"]
from emcache_cli.main import main
main()
"""


def test_in_a_process_of_its_own_where_much_is_broken(tmp_path: Path) -> None:
    """No hub behind HF_ENDPOINT, no polars for a table, no DuckDB, a record that is none."""
    (tmp_path / "emcache.toml").write_text("")
    (tmp_path / "runs" / "odd").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGES],
        cwd=tmp_path,
        env={
            **os.environ,
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["hub"]["verdict"] == "WARN"
    assert "http://127.0.0.1:9 is out of reach" in rows["hub"]["message"]
    assert rows["warehouse"]["verdict"] == "FAIL"
