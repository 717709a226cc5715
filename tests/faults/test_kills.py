"""SIGKILL at random moments: the next command works, goes on, and ends as an unbroken one does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emcache_bench.synthetic import STYLES, write_domain
from snapshots import differences, snapshot

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


# `make faults` kills in all of them.
_SLOW = ("dataset add", "sync", "rebuild", "train-head", "train-lora")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in _SLOW else n for n in SCENARIOS]
)
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


def _feature_set(root: Path) -> str:
    (found,) = (path for path in (root / "cache").iterdir() if path.is_dir())
    return found.name
