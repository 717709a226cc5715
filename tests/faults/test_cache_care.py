"""Repairing and pruning the cache: what is sound, or may be, stays, whoever else is at work."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import emcache.maintenance.repair
from emcache.cache.extract import run_extraction
from emcache.cache.plan import ExtractOptions, Job, plan_extraction
from emcache.data.dataset import Selection
from emcache.maintenance.prune import find_leftovers, folder_bytes, prune_cache, remove_leftovers
from emcache.maintenance.repair import repair_feature_set, verify_cache, verify_feature_set
from emcache.progress import Quiet
from emcache.storage.hashing import json_sha256
from emcache.storage.locks import held
from emcache.storage.manifest import MANIFEST_NAME
from emcache.storage.workspace import Workspace


@pytest.fixture
def job(cells: Workspace) -> Job:
    """An extraction that is done, of a workspace with nothing else in its cache."""
    options = ExtractOptions("tiny", "random:0", 56)
    job = plan_extraction(cells, Selection("cells", None), options, Quiet())
    run_extraction(job, Quiet())
    return job


@pytest.fixture
def folder(job: Job) -> Path:
    """Its feature set."""
    return job.workspace.cache / job.name


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shard_of(folder: Path) -> Path:
    return next(folder.glob("grids/*/tokens/c/0/0/0/0"))


def older_labels(folder: Path) -> Path:
    """Labels of masks that were corrected since, which nobody could make again."""
    (current,) = (folder / "labels").iterdir()
    older = current.with_name("0123456789abcdef")
    shutil.copytree(current, older)
    return older


def prune(workspace: Workspace, *names: str, dry_run: bool = False) -> list[str]:
    removed = prune_cache(workspace, names, stale=False, dry_run=dry_run, reporter=Quiet())
    return [item.path.name for item in removed]


# Repairing


def test_what_another_repair_mended_meanwhile_stays(job: Job, folder: Path):
    before = contents(folder)
    # While another repair works, the feature set has the name of an unfinished one.
    folder.rename(folder.with_name(f"{folder.name}.partial"))
    damages = verify_feature_set(folder)
    assert [damage.file for damage in damages] == [MANIFEST_NAME]
    gone = repair_feature_set(job.workspace, folder.name, damages, Quiet())
    assert not gone.repaired
    assert "`emcache extract`" in gone.message
    folder.with_name(f"{folder.name}.partial").rename(folder)
    outcome = repair_feature_set(job.workspace, folder.name, damages, Quiet())
    assert outcome.repaired
    assert "sound by now" in outcome.message
    assert contents(folder) == before


def test_a_manifest_of_a_newer_format_is_kept(job: Job, folder: Path):
    for place in (folder, next((folder / "labels").iterdir())):
        path = place / MANIFEST_NAME
        kept = path.read_bytes()
        facts = json.loads(kept)
        facts = {**facts, "format": 99}
        del facts["sha256"]
        path.write_text(json.dumps({**facts, "sha256": json_sha256(facts)}))
        before = contents(folder)
        damages = verify_feature_set(folder)
        assert [damage.certain for damage in damages] == [False]
        outcome = repair_feature_set(job.workspace, folder.name, damages, Quiet())
        assert not outcome.repaired
        assert "upgrade emcache" in outcome.message
        assert contents(folder) == before
        path.write_bytes(kept)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("of_labels", [False, True])
def test_a_manifest_that_cannot_be_read_just_now_is_kept(
    of_labels: bool, code: int, job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    before = contents(folder)
    broken = next((folder / "labels").iterdir()) if of_labels else folder
    read_bytes = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path == broken / MANIFEST_NAME:
            raise OSError(code, os.strerror(code))
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        damages = verify_feature_set(folder)
        assert os.strerror(code) in damages[0].why
        outcome = repair_feature_set(job.workspace, folder.name, damages, Quiet())
    assert not outcome.repaired
    assert os.strerror(code) in outcome.message
    assert "repair again once it can be read" in outcome.message
    assert contents(folder) == before
    # It can be read again by the time that the lock is held.
    assert repair_feature_set(job.workspace, folder.name, damages, Quiet()).repaired
    assert contents(folder) == before
    assert verify_cache(job.workspace.cache) == []


def test_a_shard_that_cannot_be_read_just_now_is_kept(
    job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    before = contents(folder)
    with monkeypatch.context() as patch:

        def fail(path: Path) -> str:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(emcache.maintenance.repair, "file_sha256", fail)
        damages = verify_feature_set(folder)
        outcome = repair_feature_set(job.workspace, folder.name, damages, Quiet())
    assert not outcome.repaired
    assert "nothing was changed" in outcome.message
    assert contents(folder) == before


# Labels that a repair puts aside


class Killed(BaseException):
    """The process ends here."""


def kill_a_repair(job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage a shard, and end its repair in the middle."""

    def end(*_: object) -> None:
        raise Killed

    shard_of(folder).write_bytes(b"")
    damages = verify_feature_set(folder)
    with monkeypatch.context() as patch:
        patch.setattr(emcache.maintenance.repair, "compute_layers", end)
        with pytest.raises(Killed):
            repair_feature_set(job.workspace, folder.name, damages, Quiet())


def test_labels_of_older_masks_cannot_be_made_again_and_that_is_said(job: Job, folder: Path):
    older = older_labels(folder)
    (older / MANIFEST_NAME).unlink()
    done = repair_feature_set(job.workspace, folder.name, verify_feature_set(folder), Quiet())
    assert done.repaired
    assert done.message == (
        "made again: nothing. Removed: 1 sets of labels, of masks that have changed since."
    )
    assert verify_feature_set(folder) == []


def test_labels_that_a_running_repair_put_aside_stay(
    job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    kill_a_repair(job, folder, monkeypatch)
    names = [f".{folder.name}.labels.partial", f"{folder.name}.partial"]
    with held(job.workspace.cache / f".{folder.name}.lock", "repairing", Quiet()):
        assert prune(job.workspace) == []
    # Nothing holds them any more, and nothing stands that they could go back to.
    assert prune(job.workspace, dry_run=True) == names
    assert prune(job.workspace) == names
    assert prune(job.workspace) == []


def test_labels_that_a_killed_repair_put_aside_come_back(
    job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    older_labels(folder)
    before = contents(folder)
    kill_a_repair(job, folder, monkeypatch)
    found = find_leftovers(job.workspace)
    assert len(found) == 2
    # The extraction goes on from the repair, and makes the labels of the masks as they are now.
    assert run_extraction(job, Quiet()).computed
    remove_leftovers(found)
    assert folder.with_name(f".{folder.name}.labels.partial").is_dir()
    assert prune(job.workspace) == []
    damages = verify_feature_set(folder)
    assert [(damage.file, damage.why) for damage in damages] == [
        ("labels", "were put aside by a repair that was not finished")
    ]
    outcome = repair_feature_set(job.workspace, folder.name, damages, Quiet())
    assert outcome.repaired
    assert outcome.message.startswith("put back: 1 sets of labels")
    after = contents(folder)
    # A new extraction has an identifier of its own.
    assert {**after, MANIFEST_NAME: b""} == {**before, MANIFEST_NAME: b""}
    assert verify_cache(job.workspace.cache) == []
    assert not list(job.workspace.cache.glob("*.partial"))


def test_labels_of_a_repair_killed_at_its_beginning_are_not_lost(job: Job, folder: Path):
    older_labels(folder)
    before = contents(folder)
    shard_of(folder).unlink()
    (folder / "labels").rename(folder.with_name(f".{folder.name}.labels.partial"))
    # What a training makes meanwhile.
    (folder / "labels").mkdir()
    assert prune(job.workspace) == []
    damages = verify_feature_set(folder)
    assert repair_feature_set(job.workspace, folder.name, damages, Quiet()).repaired
    assert contents(folder) == before


def test_labels_put_aside_go_with_a_feature_set_that_is_pruned(job: Job, folder: Path):
    aside = folder.with_name(f".{folder.name}.labels.partial")
    (folder / "labels").rename(aside)
    assert prune(job.workspace, folder.name) == [folder.name, aside.name]
    assert not folder.exists()
    assert not aside.exists()


# Two that prune


def test_a_folder_that_another_prune_removes_as_we_look_is_no_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    trash = workspace.cache / ".removed-cells"
    (trash / "grids" / "tokens").mkdir(parents=True)
    (trash / "zarr.json").write_bytes(b"{}")
    scandir = os.scandir

    def vanish(path: str | Path | int) -> object:
        # Found by the look at the folder above it, and gone by the time of the look into it.
        if not isinstance(path, int) and Path(path).name == "grids":
            shutil.rmtree(trash, ignore_errors=True)
        return scandir(path)

    monkeypatch.setattr("os.scandir", vanish)
    assert folder_bytes(trash) in (0, 2)
    assert not trash.exists()
    (trash / "grids" / "tokens").mkdir(parents=True)
    assert prune(workspace) == [trash.name]
    assert not trash.exists()
    assert prune(workspace) == []


def test_what_changes_as_prune_looks_is_kept(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    """A file that is renamed between two looks at a folder must not make the folder look old."""
    draft = workspace.runs / ".draft-1"
    draft.mkdir(parents=True)
    (draft / "rows.parquet").write_bytes(b"rows")
    assert prune(workspace) == []
    lstat = Path.lstat

    def vanish(path: Path) -> os.stat_result:
        if path.name == "rows.parquet":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", vanish)
    assert prune(workspace) == []
    assert (draft / "rows.parquet").is_file()


# Processes of other hosts


@pytest.fixture(params=["cache/g.partial", "runs/.training-0123"])
def foreign(
    request: pytest.FixtureRequest, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What a container was at work on two days ago, on a disk of this machine."""
    path = workspace.root / request.param
    path.mkdir(parents=True)
    (path / "shard").write_bytes(b"tokens")
    write_foreign_note(lock_of(path))
    let_two_days_pass(path)
    mount(monkeypatch, "ext4")
    return path


def lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name.removesuffix('.partial').removeprefix('.')}.lock")


def write_foreign_note(lock: Path) -> None:
    facts = {"what": "extracting g", "pid": 7, "host": "container-a", "started": 1.0}
    lock.with_name(f"{lock.name}.holder").write_text(
        json.dumps({**facts, "since": "2026-01-01T00:00:00"})
    )


def let_two_days_pass(path: Path) -> None:
    then = time.time() - 2 * 86400
    for entry in (*path.rglob("*"), *path.parent.iterdir()):
        os.utime(entry, (then, then))


def mount(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounts = [
        SimpleNamespace(mountpoint="/", fstype="nfs4"),
        SimpleNamespace(mountpoint="/", fstype=kind),
        SimpleNamespace(mountpoint="/elsewhere", fstype="nfs4"),
    ]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: mounts)  # noqa: A006


def assert_kept_and_said(workspace: Workspace, path: Path, listener) -> None:
    for dry_run in (True, False):
        listener.lines.clear()
        assert not prune_cache(workspace, [], stale=False, dry_run=dry_run, reporter=listener)
        (line,) = listener.lines
        assert line.startswith(
            f"{path.relative_to(workspace.root)} stays: process 7 on container-a"
        )
        assert f"remove {path.parent.name}/{lock_of(path).name}.holder and prune again" in line
    assert (path / "shard").is_file()


def test_what_a_container_left_that_has_gone_is_pruned(
    foreign: Path, workspace: Workspace, listener
):
    removed = prune_cache(workspace, [], stale=False, dry_run=False, reporter=listener)
    assert [item.path for item in removed] == [foreign]
    assert not foreign.exists()
    assert listener.lines == []


def test_what_a_process_of_another_host_may_work_on_is_kept_and_said(
    foreign: Path, workspace: Workspace, listener, monkeypatch: pytest.MonkeyPatch
):
    mount(monkeypatch, "nfs4")
    assert_kept_and_said(workspace, foreign, listener)
    mount(monkeypatch, "ext4")
    (foreign / "shard").write_bytes(b"more tokens")
    assert_kept_and_said(workspace, foreign, listener)
    let_two_days_pass(foreign)
    # It has just begun to go on from what was left.
    write_foreign_note(lock_of(foreign))
    assert_kept_and_said(workspace, foreign, listener)
    # What the sentence advises.
    lock_of(foreign).with_name(f"{lock_of(foreign).name}.holder").unlink()
    assert prune(workspace) == [foreign.name]


def test_what_a_container_holds_the_lock_of_is_kept(foreign: Path, workspace: Workspace):
    with held(lock_of(foreign), "extracting g", Quiet()):
        write_foreign_note(lock_of(foreign))
        let_two_days_pass(foreign)
        assert prune(workspace) == []
    assert (foreign / "shard").is_file()


def test_prune_says_that_labels_put_aside_can_come_back(job: Job, folder: Path, listener):
    (folder / "labels").rename(folder.with_name(f".{folder.name}.labels.partial"))
    assert not prune_cache(job.workspace, [], stale=False, dry_run=False, reporter=listener)
    (line,) = listener.lines
    assert "`emcache cache verify --repair`" in line
    listener.lines.clear()
    prune_cache(job.workspace, [folder.name], stale=False, dry_run=True, reporter=listener)
    assert listener.lines == []
