"""Many processes at once: nothing is lost, nothing twice, and nobody is told of an error."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from emcache_bench.made_up_records import write_training_records
from emcache_bench.synthetic import STYLES, write_domain
from filelock import FileLock

from emcache.cache.extract import run_extraction
from emcache.cache.job_backbone import load_job_backbone
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.cache.writer import FeatureSetWriter
from emcache.data.dataset import Selection
from emcache.data.register import add_dataset
from emcache.maintenance.repair import verify_cache
from emcache.progress import Quiet
from emcache.storage.locks import held, held_if_free, lock_holders
from emcache.storage.records import list_record_ids, read_record
from emcache.storage.workspace import init_workspace
from emcache_warehouse.database import open_readonly
from emcache_warehouse.query import run_query
from emcache_warehouse.sync import check, sync

# Each finishes trainings as train-head does, then takes them in, as query and chart do.
WRITER = """
import sys, time
from pathlib import Path
from emcache.storage.workspace import find_workspace
from emcache_bench.made_up_records import write_training_records
from emcache_warehouse.query import run_named_query
from emcache_warehouse.sync import sync
place, first, rounds = find_workspace(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    write_training_records(place.runs, [first * 1000 + number], 5)
    report = sync(place.runs, place.warehouse)
    assert not report.problems, report
    run_named_query(place.warehouse, "leaderboard")
"""
READER = """
import sys
from pathlib import Path
from emcache_warehouse import connect
notebook = connect(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
seen = 0
for _ in range(int(sys.argv[2])):
    notebook.sync()
    found = notebook.query("select count(*) as n from runs")["n"][0]
    assert found >= seen, (found, seen)
    seen = found
"""
NOTEBOOK = """
import sys
from pathlib import Path
from emcache_warehouse.database import open_readonly
connection = open_readonly(Path(sys.argv[1]) / "warehouse.duckdb")
print("ready", flush=True)
sys.stdin.readline()
sys.stdin.readline()
print(connection.execute("select count(*) from runs").fetchone()[0], flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_many_writers_with_readers_all_the_while(tmp_path, full, count):
    writers, rounds = (16, 8) if full else (4, 2)
    workspace, _ = init_workspace(tmp_path / "workspace")
    workspace.runs.mkdir()
    sync(workspace.runs, workspace.warehouse)
    notebook = start(NOTEBOOK, workspace.root)
    processes = [start(WRITER, workspace.root, number, rounds) for number in range(writers)]
    processes += [start(READER, workspace.root, 3 * rounds) for _ in range(2)]
    for process in [notebook, *processes]:
        assert process.stdout.readline() == "ready\n"
    for process in [notebook, *processes]:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, errors
        assert errors == ""
    # The notebook kept the file that it opened, and kept nobody waiting.
    said, errors = notebook.communicate("\n", timeout=300)
    assert (said, errors, notebook.returncode) == ("0\n", "", 0)

    sync(workspace.runs, workspace.warehouse)
    ids = list_record_ids(workspace.runs)
    rows = run_query(workspace.warehouse, "SELECT run_id FROM runs", {})["run_id"].to_list()
    lost = set(ids) - set(rows)
    assert sorted(rows) == ids
    assert len(ids) == writers * rounds
    metrics = run_query(workspace.warehouse, "SELECT count(*) AS n FROM slice_metrics", {})
    assert metrics["n"].to_list() == [5 * len(ids)]
    assert {f.verdict for f in check(workspace.runs, workspace.warehouse)} == {"pass"}
    assert not list(workspace.root.glob(".warehouse.duckdb.new-*"))
    count("writers", writers)
    count("losses", len(lost))


@pytest.fixture
def job(tmp_path):
    """An extraction of twelve slices that is ready to run."""
    write_domain(tmp_path / "slices", STYLES["sharp"], slices=12, size=56, seed=0)
    workspace, _ = init_workspace(tmp_path / "workspace")
    places = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "cells", "folder", tmp_path / "slices", places, Quiet())
    options = ExtractOptions("tiny", "random:0", 56, batch=2)
    return plan_extraction(workspace, Selection("cells", None), options, Quiet())


class Lines(Quiet):
    def __init__(self, waits: threading.Event) -> None:
        self.lines: list[str] = []
        self._waits = waits

    def say(self, message: str) -> None:
        self.lines.append(message)
        if "waiting for it" in message:
            self._waits.set()


@pytest.mark.parametrize("meet_at", ["write", "finish", "not at all"])
def test_without_locks_two_extractions_leave_one_sound_feature_set(job, monkeypatch, meet_at):
    """Side by side, both at the end at once, and one that is overtaken before it writes."""
    # As on a file system whose locks everybody gets.
    monkeypatch.setattr(FileLock, "acquire", lambda self, timeout=-1: None)
    monkeypatch.setattr(FileLock, "release", lambda self: None)
    # Threads would draw random weights from one generator; processes do not.
    backbone = load_job_backbone(job, Quiet())
    monkeypatch.setattr("emcache.cache.extract.load_job_backbone", lambda *_: backbone)
    both, overtaken = threading.Barrier(2), threading.Event()
    calls = itertools.count()
    real = {name: getattr(FeatureSetWriter, name) for name in ("write", "finish")}

    def wrapped(name):
        def method(self, *rest):
            # Whoever is overtaken tries again, and then meets nobody.
            if name == meet_at and next(calls) < both.parties:
                both.wait(60)
            if meet_at == "not at all" and threading.current_thread().name == "slow":
                assert overtaken.wait(60)
            return real[name](self, *rest)

        return method

    for name in real:
        monkeypatch.setattr(FeatureSetWriter, name, wrapped(name))
    found: dict[str, object] = {}

    def extract() -> None:
        name = threading.current_thread().name
        try:
            found[name] = run_extraction(job, Quiet()).feature_set.name
        except BaseException as error:  # noqa: BLE001 - a thread's error would be lost
            found[name] = error
        if name == "quick":
            overtaken.set()

    threads = [threading.Thread(target=extract, name=name) for name in ("slow", "quick")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == {"slow": job.name, "quick": job.name}
    assert verify_cache(job.workspace.cache) == []
    assert [path.name for path in job.workspace.cache.iterdir() if path.is_dir()] == [job.name]
    (record,) = [name for name in list_record_ids(job.workspace.runs) if "-extract-" in name]
    read_record(job.workspace.runs / record)


def test_of_two_extractions_one_works_and_the_other_finds(job, monkeypatch):
    works, waits = threading.Event(), threading.Event()
    written: list[object] = []
    real = FeatureSetWriter.write

    def slow(self, shard, *rest):
        """Write once the other extraction waits."""
        written.append(shard)
        works.set()
        waits.wait(600)
        real(self, shard, *rest)

    monkeypatch.setattr(FeatureSetWriter, "write", slow)
    found: list[tuple[int, int]] = []
    heard = [Lines(waits), Lines(waits)]

    def extract(lines: Lines) -> None:
        done = run_extraction(job, lines)
        found.append((done.computed, done.copied))

    threads = [threading.Thread(target=extract, args=(lines,)) for lines in heard]
    threads[0].start()
    assert works.wait(600)
    threads[1].start()
    for thread in threads:
        thread.join(600)
    assert sorted(found) == [(0, 0), (12, 0)]
    assert len(written) == len(set(written))
    # Labels are made after the tokens, under a lock of their own; either may come first there.
    first, second = (
        [line for line in lines.lines if "waiting for it" in line and "making labels" not in line]
        for lines in heard
    )
    assert first == []
    (waiting,) = second
    assert f"process {os.getpid()} on" in waiting.lower()


HOLD = """
import sys, time
from pathlib import Path
from emcache.storage.locks import held
from emcache.progress import Quiet
with held(Path(sys.argv[1]), "extracting cells", Quiet()):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_lock_whose_holder_was_killed_is_free_and_says_so(tmp_path: Path, listener):
    lock = tmp_path / ".cells.lock"
    process = start(HOLD, lock)
    assert process.stdout.readline() == "ready\n"
    (holder,) = lock_holders(tmp_path)
    assert (holder.pid, holder.alive, holder.what) == (process.pid, True, "extracting cells")
    with held_if_free(lock, "pruning", Quiet()) as free:
        assert not free
    process.kill()
    process.wait()
    (holder,) = lock_holders(tmp_path)
    assert holder.alive is False
    with held(lock, "extracting cells", listener):
        assert lock_holders(tmp_path)[0].pid == os.getpid()
    assert listener.lines == [
        f"Process {process.pid} was extracting cells and ended before it was done: going on from "
        f"what it kept."
    ]
    assert lock_holders(tmp_path) == []


def test_a_damaged_note_is_no_holder(tmp_path: Path):
    for text in ("", "[]", '{"pid": "x"}', '{"pid": 1, "host": 2}', "[" * 100_000):
        (tmp_path / ".cells.lock.holder").write_text(text)
        assert lock_holders(tmp_path) == []
        with held(tmp_path / ".cells.lock", "extracting", Quiet()):
            pass


def test_a_reader_keeps_what_it_opened(tmp_path):
    """A notebook that never closes its connection blocks nobody and sees no half-written file."""
    workspace, _ = init_workspace(tmp_path)
    write_training_records(workspace.runs, [0], 3)
    sync(workspace.runs, workspace.warehouse)
    connection = open_readonly(workspace.warehouse)
    for seed in range(1, 4):
        write_training_records(workspace.runs, [seed], 3)
        assert sync(workspace.runs, workspace.warehouse).changed
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    connection.close()
