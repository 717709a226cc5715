import json
from pathlib import Path

import polars as pl
import pytest

from emcache.errors import FormatVersionError, RecordError
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Record, list_record_ids, new_record, read_record


@pytest.fixture
def record(tmp_path: Path) -> Record:
    with new_record(tmp_path, "train-head") as draft:
        draft.config = {"seed": 3}
        draft.write_table("epochs.parquet", pl.DataFrame({"epoch": [1, 2]}))
        draft.path("predictions/a/b.png").write_bytes(b"png")
        return draft.finish()


def test_comes_back_as_written(record: Record) -> None:
    again = read_record(record.folder)
    assert again.config == {"seed": 3}
    assert list(again.content["files"]) == ["epochs.parquet", "predictions/a/b.png"]
    assert pl.read_parquet(again.file("epochs.parquet"))["epoch"].to_list() == [1, 2]
    assert list_record_ids(record.folder.parent) == [record.id]


def test_ids_sort_by_time(tmp_path: Path) -> None:
    ids = []
    for _ in range(5):
        with new_record(tmp_path, "extract") as draft:
            ids.append(draft.id)
    assert list_record_ids(tmp_path) == ids == sorted(ids)


def test_a_failed_command_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with new_record(tmp_path, "extract") as draft:
            draft.path("a.bin").write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_record_is_not_listed(tmp_path: Path) -> None:
    with new_record(tmp_path, "extract") as draft:
        draft.path("a.bin").write_bytes(b"x")
        assert list_record_ids(tmp_path) == []
    assert list_record_ids(tmp_path) == [draft.id]


@pytest.mark.parametrize("name", ["epochs.parquet", "predictions/a/b.png", "record.json"])
def test_any_flipped_byte_is_found(record: Record, name: str) -> None:
    path = record.folder / name
    data = bytearray(path.read_bytes())
    step = max(1, len(data) // 40)
    for place in range(0, len(data), step):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        if name == "record.json" and _means_the_same(damaged, data):
            continue
        with pytest.raises((RecordError, FormatVersionError)):
            read_record(record.folder)
    path.write_bytes(data)
    read_record(record.folder)


def _means_the_same(damaged: bytes, data: bytes) -> bool:
    """A space that became another white space changes no value."""
    try:
        return bool(json.loads(damaged) == json.loads(data))
    except ValueError:
        return False


def test_missing_and_short_files_are_named(record: Record) -> None:
    path = record.file("epochs.parquet")
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(RecordError, match=r"epochs\.parquet: it has \d+ bytes instead of"):
        read_record(record.folder)
    path.unlink()
    with pytest.raises(RecordError, match=r"epochs\.parquet: it is missing"):
        read_record(record.folder)


def test_a_newer_format_is_refused(record: Record) -> None:
    content = {**record.content, "format": 99}
    del content["sha256"]
    content["sha256"] = json_sha256(content)
    (record.folder / "record.json").write_text(json.dumps(content))
    with pytest.raises(FormatVersionError, match="has format 99"):
        read_record(record.folder)


def test_a_copied_record_is_not_taken_for_another(record: Record) -> None:
    moved = record.folder.rename(
        record.folder.with_name("20200101-000000-000000-train-head-aaaaaa")
    )
    with pytest.raises(RecordError, match="it belongs to record"):
        read_record(moved)
