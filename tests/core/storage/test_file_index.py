import os
import time
from pathlib import Path

import pytest

from emcache.storage.file_index import FileIndex

OLD = time.time() - 100.5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    return path


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files be older than the clock's grain, without waiting for it."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 5_000_000_000)


def read(path: Path) -> str:
    return path.read_bytes().decode()


def test_reads_once_and_again_when_changed(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    index = FileIndex(tmp_path / "index.json")
    assert index.answer(file, "text", read) == "one"
    index.save()
    index = FileIndex(tmp_path / "index.json")
    assert index.answer(file, "text", lambda _: pytest.fail("read again")) == "one"
    file.write_bytes(b"two")
    assert index.answer(file, "text", read) == "two"


def test_a_change_of_the_same_size_and_mtime_is_seen(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    index = FileIndex(tmp_path / "index.json")
    os.utime(file, (OLD, OLD))
    assert index.answer(file, "text", read) == "one"
    file.write_bytes(b"two")
    os.utime(file, (OLD, OLD))
    assert index.answer(file, "text", read) == "two"


def test_a_file_younger_than_the_clocks_grain_is_not_trusted(tmp_path: Path, file: Path) -> None:
    index = FileIndex(tmp_path / "index.json")
    file.write_bytes(b"new")
    assert index.answer(file, "text", read) == "new"
    assert index.lookup(file, "text") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99, "entries": {}}'])
def test_a_damaged_index_is_forgotten(tmp_path: Path, file: Path, content: bytes) -> None:
    (tmp_path / "index.json").write_bytes(content)
    assert FileIndex(tmp_path / "index.json").answer(file, "text", read) == "one"
