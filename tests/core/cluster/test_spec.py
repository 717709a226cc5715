"""What ``--cluster`` and its tables in ``emcache.toml`` mean, and what is said of mistakes."""

from __future__ import annotations

import pytest

from emcache.cluster.spec import (
    LocalWorkers,
    Scheduler,
    SlurmJobs,
    SlurmWorkers,
    find_cluster,
)
from emcache.cluster.workers import threads_of
from emcache.errors import ClusterError, UsageError, WorkspaceError
from emcache.storage.workspace import init_workspace

TABLE = """
[clusters]
default = "slurm:gpu"
[clusters.gpu]
workers = 3
memory = "16GB"
cores = 8
gpus = 2
directives = ["--exclusive"]
"""


@pytest.fixture
def place(tmp_path):
    return init_workspace(tmp_path)[0]


def write(place, text):
    place.config_path.write_text(text)


def test_words(place):
    assert find_cluster(place, None) is None
    assert find_cluster(place, "none") is None
    assert find_cluster(place, "local:2") == LocalWorkers(2)
    assert find_cluster(place, "tcp://node-1:8786") == Scheduler("tcp://node-1:8786")


def test_a_table_and_the_default(place):
    write(place, TABLE)
    jobs = SlurmJobs(workers=3, memory="16GB", cores=8, gpus=2, directives=["--exclusive"])
    assert find_cluster(place, None) == find_cluster(place, "slurm:gpu") == SlurmWorkers(jobs)
    assert find_cluster(place, "none") is None
    assert jobs.workers_per_job == 2
    assert threads_of(SlurmWorkers(jobs)) == 4


def test_a_file(place, tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text('workers = 1\nmemory = "2GB"\n')
    assert find_cluster(place, f"slurm:{path}") == SlurmWorkers(SlurmJobs(workers=1, memory="2GB"))


def test_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert threads_of(LocalWorkers(2)) == 4
    assert threads_of(LocalWorkers(16)) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of(LocalWorkers(2)) == 3
    assert threads_of(Scheduler("tcp://node:1")) is None


@pytest.mark.parametrize(
    "text", ["local", "local:0", "local:-1", "slurm:", "tcp://node", "http://node:1", "two", ""]
)
def test_what_is_no_cluster(place, text):
    with pytest.raises(UsageError, match=r"--cluster cannot be .*expected local:N"):
        find_cluster(place, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[clusters.a]\nworkers = 1\nmemory = "1GB"\ncore = 1', "did you mean cores.*known: "),
        ("[clusters.a]\nworkers = 1", "memory of .clusters.a. .* is missing; expected memory of a"),
        ('[clusters.a]\nworkers = 0\nmemory = "1GB"', "workers .* is 0; expected a number of jobs"),
        ('[clusters.a]\nworkers = 1\nmemory = "much"', "memory .* is 'much'; expected memory of a"),
        ('[clusters.a]\nworkers = 1\nmemory = "1GB"\nsetup = ["a\\nb"]', "setup.* is 'a"),
        ('[clusters.b]\nworkers = 1\nmemory = "1GB"', r"no \[clusters.a\] .*known: b"),
        ("clusters = 3", "`clusters` .* is not a table"),
        ("[clusters]\na = 3", "the table of .clusters.a. .* is 3; expected a table"),
    ],
)
def test_what_is_wrong_with_a_table(place, text, said):
    write(place, text)
    with pytest.raises((ClusterError, WorkspaceError), match=said):
        find_cluster(place, "slurm:a")


def test_a_default_that_is_none(place):
    write(place, "[clusters]\ndefault = 3")
    with pytest.raises(ClusterError, match=r"default in \[clusters\] .* is 3; expected local:N"):
        find_cluster(place, None)
    write(place, '[clusters]\ndefault = "lokal:2"')
    with pytest.raises(UsageError, match=r"default in \[clusters\] .*'lokal:2'"):
        find_cluster(place, None)


@pytest.mark.parametrize("content", [b"workers = ", b"\xff", None])
def test_a_file_that_cannot_be_read(place, tmp_path, content):
    path = tmp_path / "cluster.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClusterError, match=r"cluster\.toml"):
        find_cluster(place, f"slurm:{path}")
