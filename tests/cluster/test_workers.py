"""Workers on this machine: the same bytes as one process, and what is said where they differ."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import run, start
from safetensors.torch import save_file
from snapshots import differences, snapshot

from emcache.cluster import workers
from emcache.cluster.pool import open_pool
from emcache.errors import ClusterError, StoreError
from emcache.models.backbones.base import random_backbone
from emcache.models.backbones.registry import find_backbone
from emcache.storage.records import list_record_ids
from emcache.storage.workspace import find_workspace

pytestmark = pytest.mark.cluster

TINY = ["--backbone", "tiny", "--weights", "random:0", "--longest-edge", "28"]
STUDY = """
name = "small"
[[grid]]
regimes = ["frozen", "lora"]
backbones = ["tiny"]
weights = "random:0"
longest_edge = 28
train_on = ["cells"]
evaluate_on = ["cells:train"]
seeds = "0-1"
[grid.protocol]
name = "paper"
max_epochs = 3
head = "linear"
learning_rate = 0.01
[[gap]]
between = ["cells:train", "cells:test"]
backbones = ["tiny"]
weights = "random:0"
longest_edge = 28
"""


def test_a_study_by_workers_and_without(workspace, tmp_path):
    (workspace / "study.toml").write_text(STUDY)
    alone = tmp_path / "alone"
    shutil.copytree(workspace, alone)
    run(alone, "run", "study.toml")
    done = run(workspace, "run", "study.toml", "--cluster", "local:2")
    assert "small: 4/4 runs" in done.stderr
    assert '"trained": 2' in done.stdout
    assert '"evaluated": 2' in done.stdout
    assert not list(differences(snapshot(alone), snapshot(workspace)))
    again = run(workspace, "run", "study.toml", "--cluster", "local:2")
    assert '"done_before": 2' in again.stdout
    assert not list(differences(snapshot(alone), snapshot(workspace)))


SCRIPT = """
import emcache

if __name__ == "__main__":
    workspace = emcache.Workspace.open()
    options = {"weights": "random:0", "longest_edge": 28, "cluster": "local:2"}
    tokens = emcache.extract(workspace.dataset("cells"), "tiny", **options)
    print(len(tokens))
    print(emcache.run_study(workspace, "study.toml", cluster="local:2")["done"].to_list())
"""


def test_a_script_has_workers_too(workspace, tmp_path):
    (workspace / "study.toml").write_text(STUDY)
    alone = tmp_path / "alone"
    shutil.copytree(workspace, alone)
    run(alone, "run", "study.toml")
    (workspace / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=workspace,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[2, 2, 1]"
    assert not list(differences(snapshot(alone), snapshot(workspace)))


def test_a_study_whose_data_are_not_there_waits_for_nobody(workspace):
    (workspace / "study.toml").write_text(STUDY.replace("cells", "cell"))
    began = time.monotonic()
    done = run(workspace, "run", "study.toml", "--cluster", "tcp://127.0.0.1:9", code=2)
    assert "there is no dataset" in done.stderr
    assert "scheduler" not in done.stderr
    assert time.monotonic() - began < 60


@pytest.mark.real
@pytest.mark.weights
def test_real_tokens_by_two_workers(tmp_path, lucchi_root, pretrained_file):
    """The same bytes as one process writes, in two shards."""
    weights = ["--backbone", "dinov2-small", "--weights", str(pretrained_file)]
    folders = tmp_path / "alone", tmp_path / "shared"
    for folder, cluster in zip(folders, ("none", "local:2"), strict=True):
        folder.mkdir()
        run(folder, "init", ".")
        add = ["--layout", "lucchi++", "--root", str(lucchi_root), "--every", "2"]
        run(folder, "dataset", "add", "lucchi", *add)
        run(folder, "extract", "lucchi", *weights, "--longest-edge", "140", "--cluster", cluster)
    wanted, found = map(snapshot, folders)
    assert sum(name.endswith(".npy") or "/c/" in name for name in wanted["cache"]) >= 4
    assert not list(differences(wanted["cache"], found["cache"]))


def test_an_interrupted_study_goes_on(workspace):
    (workspace / "study.toml").write_text(STUDY)
    study = start(workspace, "run", "study.toml", "--cluster", "local:2")
    until = time.monotonic() + 120
    while not _trained(workspace) and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(study.pid, signal.SIGINT)
    said, _ = study.communicate(timeout=60)
    assert study.returncode == 130, said
    assert "goes on where it stopped" in said.splitlines()[-1]
    assert "Traceback" not in said
    before = _trained(workspace)
    run(workspace, "run", "study.toml", "--cluster", "local:2")
    after = _trained(workspace)
    assert set(before) < set(after)
    assert len(after) == 4


def _trained(workspace: Path) -> list[str]:
    return [name for name in list_record_ids(workspace / "runs") if "-train-" in name]


def test_no_scheduler(workspace):
    said = run(
        workspace, "extract", "cells", *TINY, "--cluster", "tcp://127.0.0.1:9", code=2
    ).stderr
    assert "there is no scheduler at tcp://127.0.0.1:9 (waited 10 s)" in said


def test_workers_that_somebody_started(workspace):
    with scheduler() as address, worker(address), worker(address):
        run(workspace, "extract", "cells", *TINY, "--cluster", address)
        assert '"slices": 140' in run(workspace, "cache", "list").stdout
        assert '"fail"' not in run(workspace, "cache", "verify", "--cluster", address).stdout
        shards = sorted((workspace / "cache").glob("cells*/grids/*/tokens/c/*/0/0/0"))
        data = shards[1].read_bytes()
        shards[1].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        shards[2].unlink()
        alone = run(workspace, "cache", "verify", code=1).stdout
        assert alone == run(workspace, "cache", "verify", "--cluster", address, code=1).stdout
    assert "has another checksum" in alone
    assert "is missing" in alone


def test_a_scheduler_that_goes_away(workspace):
    (workspace / "study.toml").write_text(STUDY)
    with scheduler() as address, worker(address):
        study = start(workspace, "run", "study.toml", "--cluster", address)
        until = time.monotonic() + 120
        while not _trained(workspace) and time.monotonic() < until:
            time.sleep(0.1)
    said, _ = study.communicate(timeout=120)
    assert study.returncode == 2, said
    assert "Traceback" not in said
    assert "the scheduler is gone; what is done is kept" in said.splitlines()[-1]


def test_a_worker_with_other_versions(workspace, tmp_path):
    for name, version in (("torch", "1.2.3"), ("zarr", "9.9")):
        facts = tmp_path / "other" / f"{name}-{version}.dist-info"
        facts.mkdir(parents=True)
        (facts / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    with scheduler() as address, worker(address, PYTHONPATH=str(tmp_path / "other")):
        said = run(workspace, "extract", "cells", *TINY, "--cluster", address, code=2).stderr
    (error,) = [line for line in said.splitlines() if line.startswith("Error:")]
    assert f"on {socket.gethostname()} has torch 1.2.3 instead of" in error
    assert "zarr 9.9 instead of" in error
    assert "numpy" not in error


def test_a_worker_that_does_not_see_the_workspace(workspace):
    with scheduler() as address, worker(address, hidden=workspace):
        said = run(workspace, "extract", "cells", *TINY, "--cluster", address, code=2).stderr
    assert "does not see the workspace" in said
    assert str(workspace) in said


def test_a_worker_with_other_weights(workspace, tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder, seed in ((mine, 0), (other, 1)):
        folder.mkdir()
        write_tiny(folder / "tiny.safetensors", seed)
    weights = ["--backbone", "tiny", "--weights", str(mine / "tiny.safetensors")]
    with scheduler() as address, worker(address, bound=(other, mine)):
        said = run(
            workspace, "extract", "cells", *weights, "--longest-edge", "28", "--cluster", address,
            code=2,
        ).stderr  # fmt: skip
    (error,) = [line for line in said.splitlines() if line.startswith("Error:")]
    assert "tiny.safetensors" in error
    assert "changed" in error


def write_tiny(path: Path, seed: int) -> None:
    """Weights of the tiny backbone, as a file."""
    save_file(dict(random_backbone(find_backbone("tiny"), seed).model.state_dict()), path)


def test_a_disk_that_is_full_on_one_worker(tmp_path, listener):
    """Its work is done by the other one, and it gets no more."""
    workspace = find_workspace(_empty(tmp_path))
    sick = tmp_path / "sick"

    def work(number: int) -> int:
        from distributed import get_worker

        name = str(get_worker().name)
        if name == "0":
            sick.write_text(name)
            raise OSError(28, "No space left on device", "/scratch")
        return number * number

    with open_pool(workspace, "local:2", listener) as pool:
        outcomes = list(pool.run(work, range(12)))
        assert sorted(outcome.value for outcome in outcomes) == [n * n for n in range(12)]
        assert sick.exists()
        (line,) = [line for line in listener.lines if "No space left on device" in line]
        assert "(/scratch): it gets no more work" in line


def test_a_disk_that_is_full_everywhere(tmp_path, listener):
    workspace = find_workspace(_empty(tmp_path))

    def work(number: int) -> int:
        raise OSError(28, "No space left on device", "/scratch")

    with open_pool(workspace, "local:1", listener) as pool:
        (outcome,) = pool.run(work, [1])
        assert isinstance(outcome.problem, ClusterError)
        assert "No space left on device (/scratch); fix that" in str(outcome.problem)


def test_errors_of_a_worker_come_back(tmp_path, listener):
    workspace = find_workspace(_empty(tmp_path))

    def work(number: int) -> int:
        if number == 2:
            raise StoreError("two is none; choose another.", subject=number)
        return os.getpid()

    with open_pool(workspace, "local:2", listener) as pool:
        outcomes = {outcome.item: outcome for outcome in pool.run(work, range(6))}
    assert os.getpid() not in {outcome.value for outcome in outcomes.values()}
    problem = outcomes[2].problem
    assert isinstance(problem, StoreError)
    assert (str(problem), problem.subject) == ("two is none; choose another.", 2)
    assert all(outcomes[n].problem is None for n in (0, 1, 3, 4, 5))


def test_work_that_ends_every_worker(tmp_path, listener, monkeypatch):
    monkeypatch.setitem(workers._CALM, "distributed.scheduler.allowed-failures", 1)
    workspace = find_workspace(_empty(tmp_path))

    def work(number: int) -> int:
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with open_pool(workspace, "local:1", listener) as pool:
        outcomes = {outcome.item: outcome for outcome in pool.run(work, range(3))}
    assert "6 workers ended while they were at the same piece of work" in str(outcomes[0].problem)
    assert [outcomes[n].value for n in (1, 2)] == [1, 2]


def _empty(folder: Path) -> Path:
    run(folder, "init", ".")
    return folder


@contextmanager
def scheduler() -> Iterator[str]:
    """A Dask scheduler of its own."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    command = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    with running([sys.executable, *command, "--no-dashboard"]):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield address


@contextmanager
def worker(
    address: str,
    *,
    hidden: Path | None = None,
    bound: tuple[Path, Path] | None = None,
    **environment: str,
) -> Iterator[None]:
    """A Dask worker, from which a folder may be hidden, or shown another one in its place."""
    command = [
        sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
        "--memory-limit", "0", "--no-nanny", "--no-dashboard",
    ]  # fmt: skip
    if hidden is not None or bound is not None:
        mount = f"mount -t tmpfs none {hidden}" if hidden else f"mount --bind {bound[0]} {bound[1]}"
        inside = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]
        if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
            pytest.skip("this machine has no mount namespaces")
        command = [*inside, *command]
    with running(command, **environment):
        yield


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[None]:
    """A process that is ended at the end."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
