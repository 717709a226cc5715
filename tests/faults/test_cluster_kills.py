"""SIGKILL to workers, and to the process that gives them work, while a study is carried out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from commands import run, start
from emcache_bench.synthetic import STYLES, write_domain
from snapshots import differences, snapshot

pytestmark = pytest.mark.cluster

STUDY = """
name = "small"
[[grid]]
regimes = ["frozen", "lora"]
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
CLUSTER = ["run", "study.toml", "--cluster", "local:2"]
LONGEST = 600


def test_killed_workers_and_clients(tmp_path, full, chance, count):
    """An extraction of three shards and four runs; nothing is lost, and nothing written twice."""
    template = tmp_path / "template"
    template.mkdir()
    write_domain(template / "slices", STYLES["sharp"], slices=140, size=28, seed=0)
    (template / "study.toml").write_text(STUDY)
    run(template, "init", ".")
    files = ["--images", "images/*.png", "--masks", "masks/*.png"]
    run(template, "dataset", "add", "cells", "--layout", "folder", "--root", "slices", *files)
    expected = tmp_path / "expected"
    shutil.copytree(template, expected)
    run(expected, "run", "study.toml")
    wanted = snapshot(expected)

    moments = chance("kills of workers")
    kills = {"workers": 0, "clients": 0}
    trials = 0
    while sum(kills.values()) < (100 if full else 2):
        trials += 1
        assert trials < 100, "studies end before anything can be killed"
        place = tmp_path / f"trial-{trials}"
        shutil.copytree(template, place)
        for _ in range(20):
            study = start(place, *CLUSTER)
            until = time.monotonic() + LONGEST
            victims = ["client" if moments.random() < 0.25 else "worker" for _ in range(4)]
            for victim in victims:
                pause = moments.uniform(0.2, 5)
                workers = _wait_for_workers(study, until)
                _sleep(study, pause)
                if study.poll() is not None:
                    break
                if victim == "client":
                    os.kill(study.pid, signal.SIGKILL)
                    kills["clients"] += 1
                    break
                with suppress(ProcessLookupError):
                    os.kill(moments.choice(workers), signal.SIGKILL)
                    kills["workers"] += 1
            said, _ = study.communicate(timeout=LONGEST)
            assert "Traceback" not in said
            if study.returncode == 0:
                break
            assert study.returncode == -signal.SIGKILL, said
            _wait_for_the_end_of(workers)
        assert not list(differences(wanted, snapshot(place))), kills
        shutil.rmtree(place)
    count("kills", sum(kills.values()))
    for kind, number in kills.items():
        count(f"kills of {kind} of a study", number)


def _wait_for_workers(study: subprocess.Popen[str], until: float) -> list[int]:
    """Process numbers of both workers, once they are there."""
    found: list[int] = []
    while study.poll() is None and time.monotonic() < until:
        with suppress(psutil.Error):
            children = psutil.Process(study.pid).children(recursive=True)
            found = sorted(c.pid for c in children if "spawn_main" in " ".join(c.cmdline()))
        if len(found) >= 2:
            break
        time.sleep(0.05)
    return found


def _sleep(study: subprocess.Popen[str], seconds: float) -> None:
    until = time.monotonic() + seconds
    while study.poll() is None and time.monotonic() < until:
        time.sleep(0.02)


def _wait_for_the_end_of(workers: list[int]) -> None:
    """Those of a client that was killed notice it and end by themselves."""
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until, "a worker outlives its client"
        time.sleep(0.1)
