"""Nothing that is read leads out of its place, is carried out, or stands unescaped in a page."""

from __future__ import annotations

import json
import os
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from emcache.data.classes import class_rule
from emcache.data.images import page_sizes, read_image, read_mask
from emcache.data.listing import glob_images, locate
from emcache.data.plane import Plane
from emcache.data.register import add_dataset
from emcache.data.resize import GreyWindow, find_window
from emcache.data.splits import read_split_lists
from emcache.data.volumes.open import open_volume
from emcache.errors import (
    AdapterError,
    DatasetError,
    EmcacheError,
    ImageError,
    StudyError,
    UsageError,
    WarehouseError,
    WeightsError,
    WorkspaceError,
)
from emcache.evaluation.outputs import plan_files, writers
from emcache.models.lora_files import CONFIG_FILE, WEIGHTS_FILE, check_adapter_config
from emcache.models.weights import read_weights_file
from emcache.progress import Quiet
from emcache.storage.file_index import FileIndex
from emcache.storage.records import new_record
from emcache.storage.workspace import Workspace, init_workspace
from emcache.studies.file import read_study
from emcache.training.protocol import Protocol, read_protocol
from emcache_warehouse.charts.audit import worst_slices
from emcache_warehouse.query import parse_value, run_query
from emcache_warehouse.report.content import Picture, Section
from emcache_warehouse.report.page import report_page, write_report
from emcache_warehouse.report.pictures import shown_smaller, worst_pictures
from emcache_warehouse.sync import sync

STACK = np.random.default_rng(1).integers(0, 256, (3, 24, 20), np.uint8)


def png(rows: int, columns: int, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG whose header claims a size, and which holds a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


# Claims


@pytest.mark.parametrize("size", [(1 << 31) - 1, 40_000, 30_000])
def test_a_small_picture_cannot_claim_a_large_one(tmp_path: Path, size: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(size, size))
    with pytest.raises(ImageError, match=r"claims \d+ x \d+ pixels|cannot be decoded"):
        read_image(Plane(path))


def test_a_small_tiff_cannot_claim_a_large_one(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, STACK[0], compression="zlib", metadata=None)
    data = bytearray(path.read_bytes())
    for tag in (256, 257, 278):
        place = data.index(struct.pack("<HHI", tag, 4 if tag == 278 else 3, 1)[:2], 8)
        struct.pack_into("<HII", data, place + 2, 4, 1, 30_000)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"claims 30000 x 30000 pixels in \d+ bytes"):
        read_image(Plane(path))


def test_a_tiff_is_given_up_at_the_first_complaint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, np.repeat(STACK, 20, axis=0), photometric="minisblack", metadata=None)
    data = bytearray(path.read_bytes())
    # The type of every entry that says how many columns there are.
    entries = [i for i in range(len(data) - 8) if data[i : i + 2] == struct.pack("<H", 256)]
    entries = [i for i in entries if data[i + 4 : i + 8] == struct.pack("<I", 1)]
    assert len(entries) == 60
    for place in entries:
        struct.pack_into("<H", data, place + 2, 99)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="cannot be decoded"):
        page_sizes(Plane(path))
    assert len([item for item in caplog.records if item.name == "tifffile"]) <= 1


def change_metadata(path: Path, **changes: Any) -> None:
    file = path / "zarr.json" if (path / "zarr.json").exists() else path / ".zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_zarr_array_cannot_claim_more_planes_than_can_be_listed(tmp_path: Path) -> None:
    path = tmp_path / "v.zarr"
    zarr.create_array(path, data=STACK, chunks=(1, 24, 20))
    change_metadata(path, shape=[1 << 31, 24, 20])
    with pytest.raises(ImageError, match="claims 2147483648 planes; expected at most"):
        page_sizes(Plane(path))
    change_metadata(path, shape=[3, 1 << 29, 1])
    assert len(page_sizes(Plane(path))) == 3
    with pytest.raises(ImageError, match="claims 536870912 planes"):
        page_sizes(Plane(path, axis=1))


def test_a_zarr_chunk_cannot_claim_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "v.zarr"
    zarr.create_array(path, data=STACK, chunks=(1, 24, 20), zarr_format=2)
    change_metadata(path, chunks=[1 << 20, 1 << 20, 1 << 20])
    with pytest.raises(ImageError, match="stored in chunks of 1048576 x 1048576 x 1048576 values"):
        open_volume(path)


@pytest.mark.parametrize("codec", ["pickle", "msgpack2", "json2"])
def test_a_zarr_codec_that_makes_objects_is_not_tried(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "v.zarr"
    zarr.create_array(path, data=STACK, chunks=(1, 24, 20), zarr_format=2)
    filters = [{"id": "vlen-bytes"}, {"id": codec}]
    change_metadata(path, dtype="|O", fill_value="", filters=filters)
    with pytest.raises(ImageError, match=rf"'{codec}', which is not read|cannot be read as Zarr"):
        open_volume(path)
    change_metadata(path, dtype="|u1", fill_value=0, filters=None, compressor={"id": codec})
    with pytest.raises(ImageError, match="cannot be read as Zarr"):
        open_volume(path)


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["text"] = np.full((3, 4, 5), b"x" * 9, "S9")
        file["table"] = np.zeros((3, 4), [("a", "u1"), ("b", "f4")])
        file["empty"] = h5py.Empty("f4")
    for name in ("text", "table", "empty"):
        with pytest.raises(ImageError, match=r"values of type|has the shape|cannot be read"):
            read_mask(Plane(tmp_path / "v.h5", name, 0, 0))


def test_a_whole_number_that_no_label_holds(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.full((4, 5), 1e30, np.float32))
    with pytest.raises(ImageError, match="20 values that are not whole numbers"):
        read_mask(Plane(tmp_path / "m.tif"))
    with pytest.raises(UsageError, match="more than 64 bits"):
        class_rule(None, {"background": [0], "cell": [1 << 70]})


def test_greys_that_have_no_scale() -> None:
    for black, white in ((-1.7e308, 1.7e308), (0.0, 5e-324), (0.0, float("nan")), (1.0, 1.0)):
        with pytest.raises(UsageError, match="is empty"):
            GreyWindow(black, white)
    wide = np.array([[-1.7e308, 1.7e308]])
    with pytest.raises(ImageError, match="values go from"):
        find_window(lambda: [("x", wide)], (0.1, 99.9))


def test_a_tensor_cannot_claim_what_it_does_not_hold(tmp_path: Path) -> None:
    for place, tensor in enumerate(
        (
            torch.ones(1).expand(1 << 20, 1 << 20),
            torch.ones(3, device="meta"),
            torch.eye(3).to_sparse(),
        )
    ):
        file = tmp_path / f"{place}.pth"
        torch.save({"a": tensor}, file)
        with pytest.raises(
            WeightsError, match=r"no plain numbers as 'a'|cannot be read as weights"
        ):
            read_weights_file(file)


# Names and links


@pytest.mark.parametrize("kind", ["pipe", "device", "circle"])
def test_what_never_ends_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.symlink_to(path)
    with pytest.raises(ImageError, match=r"pipe or a device|cannot be opened"):
        open_volume(path)
    assert glob_images(tmp_path, "*") == []
    if kind != "circle":
        with pytest.raises(UsageError, match="cannot be read"):
            read_split_lists([f"train=@{path}"])
    with pytest.raises(UsageError, match="holds no image"):
        plan_files([tmp_path], tmp_path / "o", probabilities=False, overlays=False, overwrite=False)


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\0.png", "x" * 300 + ".zarr", "a.h5\0"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="cannot be opened"):
        open_volume(tmp_path / name)


@pytest.mark.parametrize(
    "pattern",
    ["..", "../*", "/etc/*", "a/../../*.png", ".", "", "x" * 300, "a\0", "**x", "**/" * 2000 + "*"],
)
def test_patterns_stay_below_the_root(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "outside.png").touch()
    (tmp_path / "root").mkdir()
    with pytest.raises(UsageError, match=r"leaves the root|is not a pattern"):
        glob_images(tmp_path / "root", pattern)


def test_links_stay_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.tif").touch()
    (root / "a.tif").symlink_to(tmp_path / "outside.tif")
    (root / "circle").symlink_to(root / "circle")
    for ask in (lambda: glob_images(root, "*.tif"), lambda: locate(root, "a.tif")):
        with pytest.raises(DatasetError, match="is a link to"):
            ask()
    with pytest.raises(EmcacheError, match=r"circle"):
        open_volume(locate(root, "circle/a.tif")[0])


def test_a_zarr_group_keeps_its_arrays_in_its_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    zarr.create_array(secret, data=STACK, chunks=(1, 24, 20))
    group = tmp_path / "v.zarr"
    zarr.open_group(group, mode="w")
    (group / "0").symlink_to(secret)
    with pytest.raises(ImageError, match=r"is a link that leaves v\.zarr"):
        open_volume(group, "0")
    for path in ("../secret", "/../secret"):
        with pytest.raises(ImageError):
            open_volume(group, path)


def test_predictions_stay_below_their_folder(tmp_path: Path) -> None:
    Image.fromarray(STACK[0]).save(tmp_path / "a.png")
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / ".a.png.partial").symlink_to(outside / "written")
    (file,) = plan_files(
        [tmp_path / "a.png"], out, probabilities=False, overlays=False, overwrite=True
    )
    with writers(file) as write:
        write.mask.write(STACK[0])
    assert (out / "a.png").is_file()
    assert not list(outside.iterdir())
    (out / "overlays").symlink_to(outside)
    with pytest.raises(UsageError, match=r"is a link to .*outside"):
        plan_files([tmp_path / "a.png"], out, probabilities=False, overlays=True, overwrite=True)


# Tables


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


GRID = '[[grid]]\nbackbones = ["tiny"]\ntrain_on = ["a"]\nseeds = "0"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 9000 + "]" * 9000, "is not TOML"),
        ("a = " + "9" * 9000, "is not TOML"),
        ("a = 0x" + "f" * 9000, "hundreds of digits"),
        ("a" + ".a" * 30_000 + " = 1", "a dotted name of many parts"),
        (f"{GRID}longest_edge = 0x{'f' * 9000}", "hundreds of digits"),
        (f'{GRID}weights = "a\\u0000"', "NUL"),
        (f"{GRID}pixel_size_nm = inf", "pixel_size_nm"),
        (
            f'[[grid]]\nbackbones = {["tiny"] * 300}\ntrain_on = {["a"] * 300}\nseeds = "0"',
            "has 90000 cells; expected at most 10000",
        ),
    ],
    ids=lambda text: text[:20],
)
def test_studies(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        read_study(write(tmp_path / "s.toml", text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 9000 + "]" * 9000, "is not valid TOML"),
        ("a = " + "9" * 9000, "is not valid TOML"),
        ("a = 0x" + "f" * 9000, "hundreds of digits"),
        ("a" + ".a" * 30_000 + " = 1", "a dotted name of many parts"),
        ('a = "\\u0000"', "NUL"),
        ('[datasets."../x"]\nlayout = "vnc"\nroot = "."', "cannot name a dataset"),
    ],
    ids=lambda text: text[:20],
)
def test_workspaces(workspace: Workspace, text: str, said: str) -> None:
    workspace.config_path.write_text(text)
    with pytest.raises((WorkspaceError, UsageError), match=said):
        workspace.dataset_names()


@pytest.mark.parametrize(
    "values",
    [
        {"batch": "2"},
        {"batch": True},
        {"head": None},
        {"name": "x"},
        {"max_epochs": 1.5},
        {"gradient_clip": 10**400},
    ],
)
def test_protocols_of_records(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_protocol(values)
    later = {"learning_rate": 1, "of_later": 10**400}
    assert read_protocol(later) == Protocol(learning_rate=1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"r": 1 << 31},
        {"r": "8"},
        {"target_modules": "(a+)+$ "},
        {"target_modules": ["x"]},
        {"init_lora_weights": "pissa"},
        {"modules_to_save": ["norm"]},
        {"lora_alpha": float("nan")},
        {"use_dora": True},
        {"peft_type": "IA3"},
        {"bias": "all"},
        {"of_a_later_version": 1},
        {"megatron_core": "antigravity"},
    ],
    ids=str,
)
def test_adapters_ask_for_plain_lora_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    plain = {"r": 8, "lora_alpha": 16.0, "target_modules": r"blocks\.\d+\.(attn\.qkv)"}
    (tmp_path / WEIGHTS_FILE).touch()
    write(tmp_path / CONFIG_FILE, json.dumps({**plain, "peft_type": "LORA", "bias": "none"}))
    check_adapter_config(tmp_path)
    write(tmp_path / CONFIG_FILE, json.dumps({**plain, **change}))
    with pytest.raises(AdapterError, match=f"{next(iter(change))} = .*is not read"):
        check_adapter_config(tmp_path)


# SQL


def test_numbers_of_any_length_are_parameters(workspace: Workspace) -> None:
    assert parse_value("9" * 38) == int("9" * 38)
    for text in ("9" * 39, "9" * 9000, "٣"):
        assert parse_value(text) == text
    sync(workspace.runs, workspace.warehouse)
    for sql, given in (("SELECT '\udcff'", {}), ("SELECT $a", {"a": "\udcff"})):
        with pytest.raises(UsageError, match="is not text"):
            run_query(workspace.warehouse, sql, given)


def test_dates_that_python_has_not_are_refused(workspace: Workspace) -> None:
    sync(workspace.runs, workspace.warehouse)
    for moment in ("DATE 'infinity'", "TIMESTAMP '-infinity'", "TIMESTAMP '10000-01-01'"):
        with pytest.raises(WarehouseError, match="column a holds a date before the year 1 or"):
            run_query(workspace.warehouse, f"SELECT {moment} AS a", {})
    rows = run_query(
        workspace.warehouse, "SELECT DATE '9999-12-31' AS a, TIMESTAMP '0001-01-01'", {}
    )
    assert rows["a"].to_list()[0].year == 9999


# Pages

HOSTILE = "\"><hostile-tag onhostile='x'>'</script><script>hostile()</script>{{ 7 * 7 }}&amp;"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.scripts += tag == "script"


def check_page(text: str, scripts: int) -> None:
    page = Tags(text)
    assert page.scripts == scripts
    assert not [tag for tag, _ in page.tags if "hostile" in tag]
    assert not [names for _, names in page.tags if any("hostile" in name for name in names)]
    assert "49" not in text.partition("{{ 7")[0][-3:]
    assert "<hostile" not in text


def hostile_rows(columns: dict[str, Any], rows: int = 6) -> pl.DataFrame:
    return pl.DataFrame([columns] * rows)


RUN_TEXTS = (
    *("regime", "backbone", "weights", "protocol", "train_on", "sampling", "head", "precision"),
    *("device", "resident", "stopped_by", "run_fingerprint"),
)


def make_hostile(workspace: Workspace) -> str:
    """Records whose every text came from someone else; the identifier of the run."""
    metrics = {"eval_on": HOSTILE, "split": "test", "class": "foreground", "slice_id": HOSTILE}
    counts = {"tp": 10, "fp": 2, "fn": 3, "tn": 100}
    with new_record(workspace.runs, "dataset") as draft:
        draft.config = {
            "dataset": HOSTILE,
            "layout": HOSTILE,
            "root": HOSTILE,
            "pairing": HOSTILE,
            "n_slices": 1,
            "n_labelled": 1,
        }
    with new_record(workspace.runs, "audit") as draft:
        draft.config = {
            "dataset": HOSTILE,
            "verdict": HOSTILE,
            "audit_key": HOSTILE,
            "pairing": {
                "own_mask_wins": 0.5,
                "displaced": {HOSTILE: HOSTILE},
                "undecided": [HOSTILE],
                "evidence": 0.5,
                "cause": HOSTILE,
                "orientation": HOSTILE,
                "channel": HOSTILE,
                "examined": 2,
            },
            "checks": [{"name": HOSTILE, "verdict": HOSTILE, "message": HOSTILE}],
        }
        scores = {"image": HOSTILE, "mask": HOSTILE, "score": 0.5}
        draft.write_table(
            "audit_scores.parquet",
            hostile_rows({**scores, "declared": True, "assigned": True}, 1),
        )
        draft.path("worst/a.png").write_bytes(png(30_000, 30_000))
        draft.path(f"worst/{HOSTILE.replace('/', '')}.png").write_bytes(png(4, 4))
        draft.path("worst/b.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    with new_record(workspace.runs, "train-head") as draft:
        draft.config = {
            **dict.fromkeys(RUN_TEXTS, HOSTILE),
            "seed": 0,
            "longest_edge": 70,
            "pixel_size_nm": None,
            "n_train": 3,
            "n_val": 1,
            "epochs_run": 2,
        }
        draft.write_table("slice_metrics.parquet", hostile_rows({**metrics, **counts}, 1))
        draft.write_table(
            "epochs.parquet",
            pl.DataFrame(
                {
                    "epoch": [1, 2],
                    "train_loss": [0.5, float("nan")],
                    "val_loss": [0.5, float("inf")],
                    "val_iou_fg": [0.1, 0.2],
                    "seconds": [1.0, 1.0],
                }
            ),
        )
    return draft.id


def test_a_report_escapes_what_came_from_outside(tmp_path: Path) -> None:
    workspace = init_workspace(tmp_path / "w")[0]
    make_hostile(workspace)
    assert not sync(workspace.runs, workspace.warehouse).problems
    # Its name is not even text.
    renamed = workspace.root.rename(tmp_path / (HOSTILE.replace("/", "") + "\udcff"))
    places = {"runs": tmp_path / "w" / "runs", "warehouse": tmp_path / "w" / "warehouse.duckdb"}
    workspace.root.symlink_to(renamed)
    write_report(type("Placed", (Workspace,), places)(renamed), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_page(text, 2)
    (policy,) = (
        names["content"]
        for tag, names in Tags(text).tags
        if tag == "meta" and names.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert "default-src 'none'; img-src data:;" in policy
    assert HOSTILE.replace("&", "&amp;").replace("<", "&lt;")[:5] in text or "&#34;&gt;" in text


def test_a_gallery_escapes_what_came_from_outside() -> None:
    picture = Picture(b"", HOSTILE, HOSTILE, HOSTILE)
    section = Section("hostile", HOSTILE, pictures=[picture])
    check_page(report_page(HOSTILE, HOSTILE, [section], {HOSTILE: HOSTILE}), 0)


def test_pictures_that_cannot_be_shown_are_left_out(workspace: Workspace) -> None:
    assert shown_smaller(png(4, 4)) is not None
    for data in (b"", b"GIF89a", png(30_000, 30_000), png(400, 400)):
        assert shown_smaller(data) is None
    row = {
        "run_id": make_hostile(workspace),
        "eval_on": "cells",
        "slice_id": "gone",
        "iou_fg": None,
        **dict.fromkeys(("backbone", "weights", "train_on"), "x"),
        "seed": 0,
    }
    for changed in ({}, {"run_id": "../../x"}, {"run_id": ".."}, {"slice_id": "../../../x"}):
        pictures, note = worst_pictures(workspace, pl.DataFrame([{**row, **changed}]), 3)
        assert pictures == []
        assert note.startswith("1 scores")


def test_a_slice_that_has_gone_is_left_out(cells: Workspace) -> None:
    with new_record(cells.runs, "train-head") as draft:
        for kind in ("masks", "predictions"):
            Image.fromarray(STACK[0]).save(draft.path(f"{kind}/cells/gone.png"))
    row = {"run_id": draft.id, "eval_on": "cells", "slice_id": "gone", "iou_fg": 0.5}
    pictures, note = worst_pictures(cells, pl.DataFrame([row]), 3)
    assert (pictures, note[:8]) == ([], "1 scores")


def test_an_mrc_file_cannot_claim_a_header_that_it_does_not_have(tmp_path):
    from emcache.data.volumes.mrc import open_mrc

    mrcfile = pytest.importorskip("mrcfile")
    path = tmp_path / "small.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.zeros((3, 4, 5), np.int16))
    assert open_mrc(path).sizes_along(0)
    data = bytearray(path.read_bytes())
    data[92:96] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ImageError, match="extended header of 2147483647 bytes is longer"):
        open_mrc(path)


@pytest.mark.parametrize("what", ["workspace", "dataset"])
def test_folders_whose_names_are_no_text(workspace: Workspace, tmp_path: Path, what: str) -> None:
    folder = tmp_path / os.fsdecode(b"odd-\xff")
    if what == "workspace":
        with pytest.raises(WorkspaceError, match="is not UTF-8"):
            init_workspace(folder)
        assert not folder.exists()
        return
    folder.mkdir()
    with pytest.raises(DatasetError, match="is not UTF-8"):
        add_dataset(workspace, "odd", "folder", folder, {"images": "*.png"}, Quiet())


def test_no_answer_of_a_changed_index_is_used(tmp_path: Path) -> None:
    path = tmp_path / "files.json"
    index = FileIndex(path)
    assert index.memo("question", lambda: "answer") == "answer"
    index.save()
    assert FileIndex(path).memo("question", lambda: "other") == "answer"
    path.write_text(path.read_text().replace('"answer": "answer"', '"answer": "forged"'))
    assert FileIndex(path).memo("question", lambda: "other") == "other"


def test_an_audit_shows_its_own_pictures_alone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "audit" / "worst"
    folder.mkdir(parents=True)
    Image.fromarray(STACK[0]).save(folder / "own.png")
    Image.fromarray(STACK[0]).save(tmp_path / "elsewhere.png")
    (folder / "link.png").symlink_to(tmp_path / "elsewhere.png")
    runs = tmp_path / "runs"
    assert [item.slice_id for item in worst_slices(runs, "audit")] == ["own"]
    assert worst_slices(runs / "other", "../audit") == []
