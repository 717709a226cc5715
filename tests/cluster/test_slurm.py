"""An extraction and a study as jobs of a real SLURM, one of them cancelled and one requeued."""

from __future__ import annotations

import shutil
import time

import pytest
from commands import run, start
from slurm import ask
from snapshots import differences, snapshot

from emcache.storage.records import list_record_ids

pytestmark = pytest.mark.cluster

TINY = ["--backbone", "tiny", "--weights", "random:0", "--longest-edge", "28"]
TABLE = """
[clusters.here]
workers = 2
memory = "1GB"
partition = "main"
"""
STUDY = """
name = "small"
[[grid]]
regimes = ["frozen", "lora"]
backbones = ["tiny"]
weights = "random:0"
longest_edge = 28
train_on = ["cells"]
seeds = "0-3"
[grid.protocol]
name = "paper"
max_epochs = 6
head = "linear"
learning_rate = 0.01
"""


def test_a_job_that_is_cancelled_and_one_that_is_requeued(workspace, slurm, tmp_path):
    config = workspace / "emcache.toml"
    config.write_text(config.read_text() + TABLE)
    (workspace / "study.toml").write_text(STUDY)
    alone = tmp_path / "alone"
    shutil.copytree(workspace, alone)
    run(alone, "extract", "cells", *TINY)
    run(alone, "run", "study.toml")

    run(workspace, "extract", "cells", *TINY, "--cluster", "slurm:here", **slurm)
    study = start(workspace, "run", "study.toml", "--cluster", "slurm:here", **slurm)
    cancelled = _job_after(1, workspace, slurm, study)
    ask("scancel", cancelled, **slurm)
    requeued = _job_after(3, workspace, slurm, study, other_than=cancelled)
    ask("scontrol", "requeue", requeued, **slurm)
    said, _ = study.communicate(timeout=400)
    assert study.returncode == 0, said
    assert "8/8 runs" in said
    assert ask("squeue", "-h", "-o", "%i", **slurm).split() == []
    # Workers left what they print, and nothing else.
    shutil.rmtree(workspace / "logs")
    assert not list(differences(snapshot(alone), snapshot(workspace)))


def _job_after(count, workspace, slurm, study, other_than=""):
    """A job that runs once so many runs are trained."""
    until = time.monotonic() + 300
    while study.poll() is None and time.monotonic() < until:
        trained = [name for name in list_record_ids(workspace / "runs") if "-train-" in name]
        running = set(ask("squeue", "-h", "-t", "R", "-o", "%i", **slurm).split()) - {other_than}
        if len(trained) >= count and running:
            return min(running)
        time.sleep(0.2)
    said = study.communicate()[0] if study.poll() is not None else ""
    pytest.fail(f"the study ended before a job could be taken from it: {said}")


def test_what_slurm_refuses(workspace, slurm):
    config = workspace / "emcache.toml"
    config.write_text(config.read_text() + TABLE.replace('"main"', '"absent"'))
    said = run(
        workspace, "extract", "cells", *TINY, "--cluster", "slurm:here", code=2, **slurm
    ).stderr
    assert "SLURM refuses the jobs of this configuration" in said
    assert "absent" in said or "partition" in said


def test_a_machine_without_slurm(workspace):
    config = workspace / "emcache.toml"
    config.write_text(config.read_text() + TABLE)
    said = run(
        workspace, "extract", "cells", *TINY, "--cluster", "slurm:here", code=2, PATH="/nowhere"
    ).stderr
    assert said.startswith("Error: there is no sbatch on this machine")
