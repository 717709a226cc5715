"""SIGKILL at random moments: the next command works, goes on, and ends as an unbroken one does."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from emcache_bench.synthetic import STYLES, write_domain

from emcache.maintenance.prune import find_leftovers, remove_leftovers
from emcache.storage.records import list_record_ids, read_record
from emcache.storage.workspace import find_workspace
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import check, sync

SERVER = Path(__file__).with_name("forkserver.py")
SETUP = [
    ["init", "."],
    [
        "dataset",
        "add",
        "cells",
        "--layout",
        "folder",
        "--root",
        "slices",
        "--images",
        "images/*.png",
        "--masks",
        "masks/*.png",
    ],
]
TINY = ["--backbone", "tiny", "--weights", "random:0", "--longest-edge", "28"]
EXTRACT = ["extract", "cells", *TINY, "--batch", "2"]
TRAIN = ["train-head", "cells", *TINY, "--seeds", "0,1", "--learning-rate", "1e-2"]
STUDY = """
name = "small"
[[grid]]
backbones = ["tiny"]
weights = "random:0"
longest_edge = 28
train_on = ["cells"]
seeds = "0-1"
[grid.protocol]
name = "paper"
max_epochs = 4
head = "linear"
learning_rate = 0.01
"""
SCENARIOS: dict[str, tuple[list[list[str]], list[str]]] = {
    "dataset add": (SETUP[:1], SETUP[1]),
    "extract": (SETUP, EXTRACT),
    "train-head": ([*SETUP, EXTRACT], [*TRAIN, "--epochs", "6", "--head", "linear"]),
    "train-lora": (SETUP, ["train-lora", *TRAIN[1:], "--epochs", "4", "--head", "linear"]),
    "run": (SETUP, ["run", "study.toml"]),
    "sync": (
        [*SETUP, EXTRACT, [*TRAIN, "--epochs", "2", "--head", "linear"]],
        ["warehouse", "sync"],
    ),
    "rebuild": (
        [*SETUP, EXTRACT, [*TRAIN, "--epochs", "2", "--head", "linear"], ["warehouse", "sync"]],
        ["warehouse", "rebuild"],
    ),
    "prune": ([*SETUP, EXTRACT], ["cache", "prune", "FEATURE-SET"]),
}
# Fields that may differ between two runs of the same work; docs/promises.md lists them.
VOLATILE = {
    "record_id", "run_id", "audit_id", "started_at", "finished_at", "seconds", "train_seconds",
    "peak_memory_bytes",
    "compute_seconds", "audits", "host", "versions", "sha256", "id", "root", "n_computed",
    "total_bytes",
}  # fmt: skip


class Server:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self, cwd: Path, arguments: list[str], kill_after: float | None = None
    ) -> dict[str, Any]:
        request = {"arguments": arguments, "cwd": str(cwd), "kill_after": kill_after}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def done(self, cwd: Path, arguments: list[str]) -> dict[str, Any]:
        answer = self.run(cwd, arguments)
        assert answer["code"] == 0, answer
        assert "Traceback" not in answer["said"], answer
        return answer


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield Server(process)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices") / "slices"
    write_domain(folder, STYLES["sharp"], slices=20, size=28, seed=0)
    return folder


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_random_moments(name, server, slices, tmp_path, full, chance, count):
    before, command = SCENARIOS[name]
    template = tmp_path / "template"
    template.mkdir()
    shutil.copytree(slices, template / "slices")
    (template / "study.toml").write_text(STUDY)
    for step in before:
        server.done(template, step)
    command = [_feature_set(template) if part == "FEATURE-SET" else part for part in command]

    expected = tmp_path / "expected"
    shutil.copytree(template, expected, symlinks=True)
    whole = server.done(expected, command)["seconds"]
    wanted = snapshot(expected)

    moments = chance(f"kills of {name}")
    kills = trials = 0
    needed = 27 if full else 2
    while kills < needed:
        trials += 1
        assert trials < 40 * needed, "the command ends before it can be killed"
        place = tmp_path / f"trial-{trials}"
        shutil.copytree(template, place, symlinks=True)
        tries = []
        for _ in range(moments.randint(2, 6)):
            moment = moments.uniform(0, whole)
            answer = server.run(place, command, moment)
            tries.append((moment, answer))
            if shown(answer):
                # Whoever has the result does not start the command again.
                break
            kills += answer["killed"]
            if not answer["killed"]:
                assert answer["code"] == 0, answer
                break
            if name == "prune" and not list((place / "cache").glob(f"*{command[-1]}")):
                # Killed when all was removed: what has gone cannot be asked for again.
                break
        else:
            server.done(place, command)
        assert not list(differences(wanted, snapshot(place))), tries
        shutil.rmtree(place)
    count("kills", kills)


def shown(answer: dict[str, Any]) -> bool:
    """Whether a command had written its whole result before it was killed."""
    try:
        json.loads(answer["out"])
    except ValueError:
        return False
    return bool(answer["killed"])


def snapshot(root: Path) -> dict[str, Any]:
    """Everything that two runs of the same work must have in common."""
    workspace = find_workspace(root)
    sync(workspace.runs, workspace.warehouse)
    findings = check(workspace.runs, workspace.warehouse)
    assert {finding.verdict for finding in findings} == {"pass"}, findings
    remove_leftovers(find_leftovers(workspace))
    return {
        "toml": workspace.config_path.read_text(),
        "cache": cache_content(workspace.cache),
        "records": sorted(map(repr, map(record_content, _records(root)))),
        "tables": {name: table(workspace.warehouse, name) for name in TABLES},
    }


def differences(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    """What differs and nothing else: whole snapshots are too long to be read."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted({*wanted, *found}):
            yield from differences(wanted.get(key), found.get(key), f"{place}/{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and wanted != found:
        yield f"{place}: {len(wanted)} wanted, {len(found)} found"
        yield from (f"{place}: wanted {item!r:.3000}" for item in wanted if item not in found)
        yield from (f"{place}: found {item!r:.3000}" for item in found if item not in wanted)
    elif wanted != found:
        yield f"{place}: wanted {wanted!r:.3000}, found {found!r:.3000}"


TABLES = ("datasets", "slices", "feature_sets", "runs", "epochs", "slice_metrics", "leaderboard")


def table(database: Path, name: str) -> list[str]:
    frame = run_query(database, f"FROM {name}", {})
    frame = frame.drop(column for column in frame.columns if column in VOLATILE)
    return sorted(map(repr, frame.rows()))


def cache_content(cache: Path) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for path in sorted(cache.rglob("*")) if cache.is_dir() else []:
        name = path.relative_to(cache).as_posix()
        if name[0] == "." or name == "files.json" or "/." in name or not path.is_file():
            continue
        if path.name == "manifest.json":
            content[name] = without_volatile(json.loads(path.read_bytes()))
        else:
            content[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return content


def _records(root: Path) -> list[Any]:
    runs = root / "runs"
    return [read_record(runs / name) for name in list_record_ids(runs)]


def record_content(record: Any) -> Any:
    files: dict[str, Any] = {}
    for name in sorted(record.content["files"]):
        path = record.folder / name
        if name.endswith(".parquet"):
            frame = pl.read_parquet(path)
            frame = frame.drop(column for column in frame.columns if column in VOLATILE)
            files[name] = frame.rows()
        else:
            files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return record.kind, without_volatile(record.config), files


def without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_volatile(v) for k, v in sorted(value.items()) if k not in VOLATILE}
    return [without_volatile(item) for item in value] if isinstance(value, list) else value


def _feature_set(root: Path) -> str:
    (found,) = (path for path in (root / "cache").iterdir() if path.is_dir())
    return found.name
