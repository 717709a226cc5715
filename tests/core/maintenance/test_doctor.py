"""What the doctor finds: every line can be well, and every line can be not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from emcache.cache.extract import run_extraction
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection
from emcache.errors import WorkspaceError
from emcache.findings import Finding, Verdict, guarded, of_sentence
from emcache.maintenance import machine
from emcache.maintenance.doctor import (
    examine_machine,
    examine_workspace,
    look_at_cache,
    look_at_datasets,
    look_at_disk,
    look_at_folders,
    look_at_leftovers,
    look_at_locks,
    look_for_workspace,
)
from emcache.maintenance.machine import (
    look_at_device,
    look_at_device_memory,
    look_at_hub,
    look_at_memory,
    look_at_packages,
)
from emcache.models import measured
from emcache.models.backbones.registry import STUDY_BACKBONES
from emcache.models.timings import Timed
from emcache.progress import Quiet
from emcache.storage.locks import held
from emcache.storage.workspace import ENVIRONMENT_VARIABLE, Workspace, init_workspace

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
GB = 10**9


def only(findings: Iterable[Finding], name: str | None = None) -> Finding:
    (found,) = (finding for finding in findings if name in (None, finding.name))
    return found


# Findings


def test_a_sentence_is_taken_apart() -> None:
    found = of_sentence("x", FAIL, "a; b is damaged (c; d); remove it, and run `emcache x`.")
    assert (found.message, found.remedy) == (
        "a; b is damaged (c; d).",
        "remove it, and run `emcache x`",
    )
    assert of_sentence("x", WARN, "nothing to do.") == Finding("x", WARN, "nothing to do.")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WorkspaceError("it is gone; make it"), "it is gone."),
        (PermissionError(13, "Permission denied", "/a/b"), "Permission denied (/a/b)"),
        (RecursionError("too deep\nby far"), "RecursionError: too deep"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_whatever_is_raised_is_a_finding(error: Exception, said: str) -> None:
    def look() -> Iterator[Finding]:
        yield Finding("before", PASS, "Well.")
        raise error

    before, found = guarded("x", look)
    assert before.name == "before"
    assert (found.name, found.verdict) == ("x", FAIL)
    assert said in found.message
    assert found.remedy


# Packages


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a package's facts before those of the real one."""

    def install(name: str, version: str, *lines: str) -> None:
        site = tmp_path / f"site-{name}-{version}"
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        facts = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines]
        (folder / "METADATA").write_text("\n".join(facts) + "\n")
        monkeypatch.syspath_prepend(str(site))

    return install


def test_the_packages_here_fit() -> None:
    findings = list(look_at_packages())
    assert {finding.name for finding in findings} == {"emcache", "packages", "extras"}
    assert {finding.verdict for finding in findings} == {PASS}
    # napari needs a window, and is not among what the checkout installs.
    extras = [
        f.message.split()[0] for f in findings if f.name == "extras" and "napari" not in f.message
    ]
    assert extras == [
        "transformers", "dask-jobqueue", "distributed", "h5py", "mrcfile", "starlette", "uvicorn"
    ]  # fmt: skip
    assert f"torch {torch.__version__.partition('+')[0]}" in only(findings, "packages").message


def test_a_package_of_another_version_fails(installed: Callable[..., None]) -> None:
    installed("polars", "1.0.0")
    found = only(look_at_packages(), "packages")
    assert found.verdict is FAIL
    assert "polars 1.0.0 is installed where" in found.message
    assert found.remedy.startswith("`pip install 'polars")
    assert ">=2.1" in found.remedy


def test_a_package_that_is_not_there_fails(installed: Callable[..., None]) -> None:
    installed("emcache", "0.0.1", "Requires-Dist: no-such-package>=2")
    found = only(look_at_packages(), "packages")
    assert (found.verdict, found.message) == (FAIL, "no-such-package is not installed.")
    assert found.remedy == "`pip install 'no-such-package>=2'`"


def test_torch_and_torchvision_must_be_a_pair(installed: Callable[..., None]) -> None:
    installed("torchvision", "0.99.0", "Requires-Dist: torch==2.99.0")
    found = only(look_at_packages(), "packages")
    assert found.verdict is FAIL
    assert "where ==2.99.0 is needed" in found.message


def test_a_format_may_be_left_out(installed: Callable[..., None]) -> None:
    lines = ("Provides-Extra: odd", "Requires-Dist: no-such-reader>=1; extra == 'odd'")
    installed("emcache", "0.0.1", *lines)
    found = only(look_at_packages(), "extras")
    assert found.verdict is PASS
    assert "no-such-reader" in found.message
    assert "`pip install 'emcache[odd]'`" in found.remedy


def test_a_format_of_another_version_is_a_warning(installed: Callable[..., None]) -> None:
    installed("h5py", "2.0")
    found = next(f for f in look_at_packages() if "h5py" in f.message)
    assert (found.name, found.verdict) == ("extras", WARN)
    assert found.remedy == "`pip install 'emcache[hdf5]'`"


def test_another_python_fails(installed: Callable[..., None]) -> None:
    installed("emcache", "0.0.1", "Requires-Python: >=9")
    found = only(look_at_packages(), "emcache")
    assert found.verdict is FAIL
    assert "where >=9 is needed" in found.message


def test_a_checkout_that_is_not_installed_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    found = only(look_at_packages())
    assert (found.name, found.verdict) == ("emcache", WARN)


# Device and memory


def test_the_device_here_computes() -> None:
    found = list(look_at_device())
    assert {finding.verdict for finding in found} == {PASS}
    assert {"device", "bfloat16", "layout"} <= {finding.name for finding in found}


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU here computes")
def test_a_device_that_does_not_compute_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = only(look_at_device(), "device")
    assert found.verdict is FAIL
    assert "--device cpu" in found.remedy


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU here is used")
def test_a_driver_that_torch_does_not_use_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_NVIDIA_DRIVER", tmp_path)
    assert only(look_at_device(), "device").verdict is WARN


def test_what_was_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    known = {
        "threads": Timed({"2": 0.01, "64": 0.4}, "64"),
        "arithmetic": Timed({"float32": 0.02, "bfloat16": 0.03}, "float32"),
        "layout": Timed({"channels-last": 0.02, "channels-first": 0.01}, "channels-last"),
    }
    monkeypatch.setattr(measured, "timings", lambda device: known)
    found = list(look_at_device())
    for name, said in {
        "threads": "computes with 2 threads, since 64 takes 40.00 times as long as 2;",
        "bfloat16": "in float32, since bfloat16 takes 1.50 times as long as float32;",
        "layout": "compute channels-first, since channels-last takes 2.00 times as long as chan",
    }.items():
        assert said in only(iter(found), name).message
    monkeypatch.setattr(measured, "timings", lambda device: dict.fromkeys(known))
    found = list(look_at_device())
    assert "no bfloat16 of its own, so `--precision auto` computes in float32" in found[-1].message
    assert [finding.name for finding in found] == ["device", "bfloat16"]


@pytest.mark.parametrize(("free", "verdict"), [(9, PASS), (7, WARN)])
def test_memory(monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict) -> None:
    monkeypatch.setattr(machine, "_PROCESS_GROUP", Path("nowhere"))
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GB, available=free * GB)
    )
    found = only(look_at_memory())
    assert (found.name, found.verdict) == ("memory", verdict)
    assert found.message.startswith("16.0 GB")
    assert bool(found.remedy) is (verdict is WARN)


@pytest.mark.parametrize(("limit", "verdict"), [("2000000000", WARN), ("max", PASS)])
def test_memory_ends_at_the_limit_of_the_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, verdict: Verdict
) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "own").write_text("1:name=systemd:/x\n0::/job\n")
    monkeypatch.setattr(machine, "_PROCESS_GROUP", tmp_path / "own")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GB, available=60 * GB)
    )
    found = only(look_at_memory())
    assert found.verdict is verdict
    assert found.message.startswith("64.0 GB, 60.0" if verdict is PASS else "2.0 GB, 2.0")


@pytest.mark.parametrize(("free", "verdict"), [(20, PASS), (1, WARN)])
def test_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free * GB, 24 * GB))
    assert only(look_at_device_memory()).verdict is verdict
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(look_at_device_memory()) == []


# The hub


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, whose client is online and asks nobody yet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, hub_cache: Path) -> Iterator[Callable[[int], None]]:
    """A hub on the loopback that answers everything with one status; 0 is not an answer at all."""
    servers: list[ThreadingHTTPServer] = []
    ended = threading.Event()

    def start(status: int) -> None:
        class Hub(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                if not status:
                    ended.wait(20)
                    return
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)

    yield start
    ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [200, 404])
def test_a_hub_that_answers(serve: Callable[[int], None], status: int) -> None:
    serve(status)
    found, weights = look_at_hub()
    assert (found.name, found.verdict) == ("hub", PASS)
    assert (weights.name, weights.verdict) == ("weights", PASS)
    assert "the hub has them" in weights.message


@pytest.mark.parametrize(("status", "why"), [(503, "status 503"), (403, "status 403"), (0, "")])
def test_a_hub_that_does_not(
    serve: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, status: int, why: str
) -> None:
    monkeypatch.setattr(machine, "_SECONDS", 0.3)
    serve(status)
    for found in look_at_hub():
        assert found.verdict is WARN
        assert "--weights FILE" in found.remedy
        assert "random:0" in found.remedy
        assert found.name != "hub" or why in found.message


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_hub_that_is_not_there(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    found, weights = look_at_hub()
    assert found.verdict is weights.verdict is WARN
    assert found.message == f"{address} is out of reach (ConnectError)."


def test_a_name_that_is_looked_up_for_ever(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def look_up() -> None:
        ended.wait(20)

    monkeypatch.setattr(machine, "_SECONDS", 0.1)
    monkeypatch.setattr("huggingface_hub.get_session", look_up)
    found, _ = look_at_hub()
    ended.set()
    assert found.verdict is WARN
    assert "no answer within" in found.message


def test_offline_the_hub_is_not_asked(
    serve: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(200)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found, weights = look_at_hub()
    assert found.verdict is weights.verdict is WARN
    assert "unset HF_HUB_OFFLINE" in found.remedy


def test_weights_at_hand_need_no_hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = STUDY_BACKBONES[0]
    assert spec.hub is not None
    repository = hub_cache / f"models--{spec.hub.repository.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("a" * 40)
    for folder in (snapshot, repository / "refs"):
        folder.mkdir(parents=True)
    (snapshot / spec.hub.name).write_bytes(b"weights")
    (repository / "refs" / "main").write_text("a" * 40)
    weights = only(look_at_hub(), "weights")
    assert (weights.verdict, weights.message) == (PASS, f"Pretrained and here: {spec.name}.")


# The workspace's places


def test_a_workspace_is_found(cells: Workspace) -> None:
    workspace, found = look_for_workspace(cells.root)
    assert workspace == cells
    assert found.verdict is PASS
    assert "cells" in found.message


def test_no_workspace_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    workspace, found = look_for_workspace(None)
    assert workspace is None
    assert found.verdict is WARN
    assert "`emcache init .`" in found.remedy


def test_a_workspace_that_was_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look_for_workspace(tmp_path)[1].verdict is FAIL
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert look_for_workspace(None)[1].verdict is FAIL


@pytest.mark.parametrize(
    "content", [b"[datasets", b"\xff\xfe", b"datasets = 3", b"[datasets.'a:b']\nroot = 'x'"]
)
def test_settings_that_cannot_be_read_fail(workspace: Workspace, content: bytes) -> None:
    workspace.config_path.write_bytes(content)
    found_there, found = look_for_workspace(workspace.root)
    assert found_there == workspace
    assert found.verdict is FAIL
    assert list(look_at_datasets(workspace)) == []


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that is open to all, in a process that may write to nothing that is not."""
    folder = Path(tempfile.mkdtemp(prefix="emcache-open-"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        nobody = 65534
        os.chown(folder, nobody, nobody)
        try:
            os.seteuid(nobody)
        except OSError:
            pytest.skip("root cannot become another user here, and root may write everywhere")
        try:
            yield folder
        finally:
            os.seteuid(0)
    else:
        yield folder
    subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)
    shutil.rmtree(folder)


def test_folders_that_can_be_written(workspace: Workspace) -> None:
    workspace.cache.mkdir()
    before = sorted(workspace.root.rglob("*"))
    assert only(look_at_folders(workspace)).verdict is PASS
    assert sorted(workspace.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("mode", "said"), [(0o555, "cannot be written"), (0o333, "cannot be listed")]
)
def test_a_folder_without_permission_fails(as_nobody: Path, mode: int, said: str) -> None:
    workspace, _ = init_workspace(as_nobody / "workspace")
    workspace.cache.mkdir()
    workspace.cache.chmod(mode)
    found = only(look_at_folders(workspace))
    assert found.verdict is FAIL
    assert said in found.message
    assert f"chmod u+rwx {workspace.cache}" in found.remedy


def test_a_workspace_that_cannot_be_entered_fails(as_nobody: Path) -> None:
    workspace, _ = init_workspace(as_nobody / "workspace")
    workspace.root.chmod(0)
    found_there, found = look_for_workspace(workspace.root)
    assert found_there is None
    assert found.verdict is FAIL
    assert "Permission denied" in found.message
    # Whatever is looked at in there, nothing is raised.
    names = {finding.name for finding in examine_workspace(workspace) if finding.verdict is FAIL}
    assert {"disk", "cache"} & names


def test_a_file_in_the_place_of_a_folder_fails(workspace: Workspace) -> None:
    workspace.runs.touch()
    found = only(look_at_folders(workspace))
    assert found.verdict is FAIL
    assert f"mv {workspace.runs}" in found.remedy


@pytest.mark.parametrize(("free", "verdict"), [(6e9, PASS), (1e9, WARN), (1e7, FAIL)])
def test_room_on_the_disk(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, free: float, verdict: Verdict
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    for place in (workspace, None):
        assert only(look_at_disk(place)).verdict is verdict


def test_a_data_set_whose_folder_has_gone_is_a_warning(cells: Workspace, cells_root: Path) -> None:
    assert only(look_at_datasets(cells)).verdict is PASS
    cells_root.rename(cells_root.with_name("elsewhere"))
    found = only(look_at_datasets(cells))
    assert found.verdict is WARN
    assert str(cells_root) in found.message


# What commands left


@pytest.fixture
def extracted(cells: Workspace) -> Workspace:
    """A workspace with a feature set and its labels."""
    options = ExtractOptions("tiny", "random:0", longest_edge=70)
    run_extraction(plan_extraction(cells, Selection.parse("cells"), options, Quiet()), Quiet())
    return cells


def token_shard(workspace: Workspace) -> Path:
    (shard,) = workspace.cache.glob("*/grids/*/tokens/c/0/0/0/0")
    return shard


@pytest.mark.parametrize("thorough", [False, True])
def test_a_sound_cache(extracted: Workspace, thorough: bool) -> None:
    found = only(look_at_cache(extracted, thorough=thorough))
    assert found.verdict is PASS
    assert found.message.startswith("1 feature set, every")


def test_no_cache_yet_is_well(workspace: Workspace) -> None:
    assert only(look_at_cache(workspace, thorough=False)).verdict is PASS


def test_a_shard_that_has_gone_fails(extracted: Workspace) -> None:
    shard = token_shard(extracted)
    shard.unlink()
    found = only(look_at_cache(extracted, thorough=False))
    assert (found.name, found.verdict) == ("cache", FAIL)
    assert "tokens/c/0/0/0/0 is missing (slices 0, 1, 2 and 7 more)" in found.message
    assert found.remedy == "`emcache cache verify --repair`"


def test_a_flipped_byte_is_found_by_a_thorough_look(extracted: Workspace) -> None:
    shard = token_shard(extracted)
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    assert only(look_at_cache(extracted, thorough=False)).verdict is PASS
    found = only(look_at_cache(extracted, thorough=True))
    assert found.verdict is FAIL
    assert "checksum" in found.message


def test_damage_of_one_feature_set_is_one_line(extracted: Workspace) -> None:
    folder = token_shard(extracted).parents[7]
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            path.unlink()
    assert "more of its files" in only(look_at_cache(extracted, thorough=False)).message
    (folder / "manifest.json").write_bytes(b"{")
    found = only(look_at_cache(extracted, thorough=False))
    assert "manifest.json" in found.message
    assert "remove" not in found.message


def test_what_a_killed_process_left_is_a_warning(workspace: Workspace) -> None:
    assert only(look_at_leftovers(workspace)).verdict is PASS
    partial = workspace.cache / "cells-tiny.partial"
    partial.mkdir(parents=True)
    (partial / "shard").write_bytes(bytes(2_000_000))
    found = only(look_at_leftovers(workspace))
    assert found.verdict is WARN
    assert "0.002 GB: cells-tiny.partial" in found.message
    assert "`emcache cache prune`" in found.remedy
    assert partial.is_dir()


KILLED = """
import os, signal, sys
from pathlib import Path
from emcache.storage.locks import held
from emcache.progress import Quiet
with held(Path(sys.argv[1]), "extracting cells", Quiet()):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_holder_that_was_killed_is_a_warning(workspace: Workspace) -> None:
    assert only(look_at_locks(workspace)).verdict is PASS
    workspace.cache.mkdir()
    lock = workspace.cache / ".cells.lock"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(lock)], check=False)
    assert ended.returncode == -signal.SIGKILL
    found = only(look_at_locks(workspace))
    assert (found.name, found.verdict) == ("locks", WARN)
    assert "was extracting cells, and was killed" in found.message
    assert "taken over by the next command" in found.remedy
    with held(lock, "extracting cells", Quiet()):
        found = only(look_at_locks(workspace))
        assert found.verdict is PASS
        assert f"Process {os.getpid()} on " in found.message
    assert only(look_at_locks(workspace)).message.startswith("No command is at work")


def test_a_holder_on_another_host_is_a_warning(workspace: Workspace) -> None:
    lock = workspace.root / ".warehouse.duckdb.lock"
    with held(lock, "writing", Quiet()):
        (note,) = workspace.root.glob("*.lock.*")
        facts = json.loads(note.read_text())
        note.write_text(json.dumps({**facts, "host": "elsewhere"}))
        found = only(look_at_locks(workspace))
    assert found.verdict is WARN
    assert "only elsewhere knows" in found.message


# All of it


def test_everything_is_looked_at_and_nothing_changed(
    extracted: Workspace, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = {p: p.read_bytes() for p in extracted.root.rglob("*") if p.is_file()}
    findings = examine_machine()
    assert {f.message for f in findings if f.verdict is FAIL} == set()
    machine = [finding.name for finding in findings]
    place = [finding.name for finding in examine_workspace(extracted, thorough=True)]
    assert machine[:2] == ["emcache", "packages"]
    assert {"extras", "device", "bfloat16", "memory", "hub", "weights"} <= set(machine)
    assert place == ["disk", "folders", "datasets", "locks", "leftovers", "cache"]
    assert {p: p.read_bytes() for p in extracted.root.rglob("*") if p.is_file()} == before
    assert [finding.name for finding in examine_workspace(None)] == ["disk"]
