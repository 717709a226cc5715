"""Hostile input: files, tables and parameters that someone bent on harm, or a bad disk, has made.

Every case ends in success or in an ``EmcacheError`` with a sentence, within a bound of time and of
memory. A valid file is changed where its format has numbers, names and lengths, and its checksums
are made anew, so that what is tried is the reader behind them. ``EMCACHE_FAULTS=full`` tries more
than 10,000 cases; ``EMCACHE_FAULTS_REPORT`` names a file that their number is added to.
"""

from __future__ import annotations

import copy
import faulthandler
import hashlib
import io
import json
import math
import os
import pickle
import resource
import signal
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import polars as pl
import pytest
import tifffile
import tomlkit
import torch
import zarr
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save, save_file

from emcache.cache.feature_set import FeatureSet, list_feature_sets
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.cache.recipe import Recipe
from emcache.data.classes import parse_classes
from emcache.data.dataset import Selection, list_dataset, load_dataset
from emcache.data.grey import GreyWindow, find_window
from emcache.data.images import page_sizes, read_image, read_mask, read_values
from emcache.data.listing import glob_images, locate
from emcache.data.plane import Plane
from emcache.data.register import add_dataset
from emcache.data.resize import preprocessing_of
from emcache.data.splits import assign_splits, read_split_lists
from emcache.data.synthetic import STYLES, write_domain
from emcache.data.volumes.open import open_volume
from emcache.errors import EmcacheError, WarehouseError
from emcache.evaluation.trained_run import find_run
from emcache.models.backbones.build import random_backbone
from emcache.models.backbones.registry import TINY
from emcache.models.heads import build_head
from emcache.models.loading import fit_weights
from emcache.models.lora_files import CONFIG_FILE, WEIGHTS_FILE, check_adapter_config
from emcache.models.weights import find_weights, find_workspace_weights, read_weights_file
from emcache.models.weights.files import locate as locate_weights
from emcache.models.weights.registering import list_weights
from emcache.progress import Quiet
from emcache.storage.file_index import open_file_index
from emcache.storage.hashing import json_sha256
from emcache.storage.records import Record, list_record_ids, new_record, read_record
from emcache.storage.workspace import Workspace, init_workspace
from emcache.studies import records as study_records
from emcache.studies.file import read_study
from emcache.training.protocol import Protocol, parse_seeds
from emcache_warehouse.named import list_queries
from emcache_warehouse.query import run_named_query, run_query
from emcache_warehouse.reading import read_records
from emcache_warehouse.sync import sync

FULL = os.environ.get("EMCACHE_FAULTS") == "full"
MOST_SECONDS = 20
"""No case of a few kilobytes may take more of the processor, however many others share it."""
MOST_WAITING = 6 * MOST_SECONDS
"""Nor may any wait longer by the clock."""
MOST_BYTES = 400 << 20
"""No case of a few kilobytes may take more memory than this beside what was there before."""
ADDRESS_SPACE = 6 << 30
"""What may be asked for, so that a bomb meets an error before the machine meets its end."""

MOST_SAID = 6000
"""No sentence repeats a whole file."""

CASES: Counter[str] = Counter()
"""Cases tried, by kind."""


def cases(short: int, full: int) -> Any:
    """So many cases of one test."""
    return settings(
        max_examples=full if FULL else short,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


class _HangError(BaseException):
    """Raised by the alarm; no reader catches it."""


def _ring(*_: object) -> None:
    raise _HangError(f"longer than {MOST_SECONDS} s, or waiting longer than {MOST_WAITING} s")


@pytest.fixture(scope="module", autouse=True)
def _bounds(request: pytest.FixtureRequest) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ADDRESS_SPACE, hard))
    alarms = (signal.SIGALRM, signal.SIGPROF)
    before = [signal.signal(alarm, _ring) for alarm in alarms]
    yield
    for alarm, handler in zip(alarms, before, strict=True):
        signal.signal(alarm, handler)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    _tell(request.config)


def _tell(config: pytest.Config) -> None:
    line = {"fuzz cases": CASES.total(), "by kind": dict(sorted(CASES.items()))}
    if path := os.environ.get("EMCACHE_FAULTS_REPORT"):
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\nfuzz cases: {CASES.total()} {dict(sorted(CASES.items()))}")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise LookupError(field)


@contextmanager
def bounded() -> Iterator[None]:
    """Fail what takes too long or too much memory."""
    # 5: forget the highest memory seen so far.
    Path("/proc/self/clear_refs").write_text("5")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, MOST_WAITING)
    # An alarm waits for C code to come back; this does not.
    faulthandler.dump_traceback_later(2 * MOST_WAITING, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
    grown = _status("VmHWM") - pages * resource.getpagesize()
    assert grown <= MOST_BYTES, f"{grown >> 20} MiB more memory"


def attempt(kind: str, *actions: Callable[[], object]) -> None:
    """One case: what each action does must end well, or in a sentence."""
    CASES[kind] += 1
    with warnings.catch_warnings(), bounded():
        warnings.simplefilter("ignore")
        for action in actions:
            said = _said(action)
            assert said.rstrip().endswith("."), said
            assert len(said) < MOST_SAID, said[:300]


def _said(action: Callable[[], object]) -> str:
    """The sentence that an action ends in."""
    try:
        action()
    except WarehouseError as error:
        # DuckDB's own words, with the place below them.
        return f"{error}."
    except EmcacheError as error:
        return str(error)
    return "Done."


# Bytes

NUMBERS = [
    *(0, 1, 2, 3, 4, 7, 8, 9, 16, 17, 32, 64, 100, 127, 128, 255, 256, 257, 1000, 4096),
    *(1 << 15, (1 << 16) - 1, 1 << 16, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
    *(1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
]
Field = tuple[int, str]
"""Where a number stands, and how ``struct`` reads it."""


def png_fields(data: bytes) -> list[Field]:
    fields: list[Field] = [(16, ">I"), (20, ">I"), *((place, ">B") for place in range(24, 29))]
    place = 8
    while place + 8 <= len(data):
        fields.append((place, ">I"))
        place += 12 + struct.unpack_from(">I", data, place)[0]
    return fields


def jpeg_fields(data: bytes) -> list[Field]:
    fields: list[Field] = []
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        fields.append((place + 2, ">H"))
        if marker in (0xC0, 0xC1, 0xC2):
            fields += [(place + 4, ">B"), (place + 5, ">H"), (place + 7, ">H"), (place + 9, ">B")]
        if marker == 0xDA:
            break
        place += 2 + length
    return fields


def tiff_fields(data: bytes) -> list[Field]:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    wide, narrow, size, head = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 2)
    start = 8 if big else 4
    fields: list[Field] = [(2, f"{order}H"), (start, order + wide)]
    offset = struct.unpack_from(order + wide, data, start)[0]
    while offset and len(fields) < 400:
        count = struct.unpack_from(order + narrow, data, offset)[0]
        fields.append((offset, order + narrow))
        for entry in range(count):
            place = offset + head + entry * size
            step = 8 if big else 4
            fields += [(place, f"{order}H"), (place + 2, f"{order}H"), (place + 4, order + wide)]
            fields.append((place + 4 + step, order + wide))
        after = offset + head + count * size
        fields.append((after, order + wide))
        offset = struct.unpack_from(order + wide, data, after)[0]
    return fields


def mrc_fields(data: bytes) -> list[Field]:
    return [(place, "<I") for place in range(0, 256, 4)]


def hdf5_fields(data: bytes) -> list[Field]:
    return [
        (place, form) for place in range(0, min(len(data), 4000), 2) for form in ("<H", "<I", "<Q")
    ]


def no_fields(data: bytes) -> list[Field]:
    return [(0, "<Q"), *((place, "<I") for place in range(0, len(data) - 8, 4))][:200]


@st.composite
def damaged(
    draw: st.DrawFn, bases: Mapping[str, bytes], fields: Callable[[bytes], list[Field]]
) -> tuple[str, bytes]:
    """One of some valid files with a few changes."""
    name = draw(st.sampled_from(sorted(bases)))
    data = bytearray(bases[name])
    known = [item for item in fields(bytes(data)) if item[0] + 8 < len(data)]
    for _ in range(draw(st.integers(1, 3))):
        if len(data) < 16:
            break
        what = draw(
            st.sampled_from(
                ["field"] * 4 + ["copy"] + ["flip"] * 2 + ["cut", "splice", "drop", "add"]
            )
        )
        place = draw(st.integers(0, len(data) - 9))
        match what:
            case "field" if known:
                place, form = draw(st.sampled_from(known))
                size = struct.calcsize(form)
                if place + size <= len(data):
                    number = draw(st.sampled_from(NUMBERS)) % (1 << 8 * size)
                    struct.pack_into(form, data, place, number)
            case "copy" if known:
                # One place of a file is told where another one lies: lists become rings.
                (place, form), (other, same) = (draw(st.sampled_from(known)) for _ in range(2))
                if max(place, other) + 8 <= len(data):
                    number = struct.unpack_from(same, data, other)[0]
                    struct.pack_into(form, data, place, number % (1 << 8 * struct.calcsize(form)))
            case "cut":
                del data[place:]
            case "splice":
                other = bases[draw(st.sampled_from(sorted(bases)))]
                start = draw(st.integers(0, max(0, len(other) - 64)))
                data[place : place + 64] = other[start : start + 64]
            case "drop":
                del data[place : place + draw(st.integers(1, 64))]
            case "add":
                data[place:place] = draw(st.binary(min_size=1, max_size=16))
            case _:
                data[place] ^= draw(st.integers(1, 255))
    return name, bytes(data)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold now."""
    done = bytearray(data)
    place = 8
    while place + 12 <= len(done):
        length = struct.unpack_from(">I", done, place)[0]
        end = place + 8 + length
        if end + 4 > len(done):
            break
        struct.pack_into(">I", done, end, zlib.crc32(done[place + 4 : end]))
        place = end + 4
    return bytes(done)


PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20), np.uint8)
STACK = np.random.default_rng(1).integers(0, 256, (3, 24, 20), np.uint8)


def saved(pixels: Image.Image, form: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    pixels.save(buffer, form, **how)
    return buffer.getvalue()


def png_bases() -> dict[str, bytes]:
    grey = Image.fromarray(PIXELS)
    palette = Image.fromarray((PIXELS > 99).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    return {
        "grey": saved(grey, "PNG"),
        "bit": saved(grey.convert("1"), "PNG"),
        "palette": saved(palette, "PNG"),
        "alpha": saved(grey.convert("LA"), "PNG"),
        "colour": saved(grey.convert("RGB"), "PNG"),
        "deep": saved(Image.fromarray(PIXELS.astype(np.uint16) * 257), "PNG"),
        "animated": saved(grey, "PNG", save_all=True, append_images=[grey.rotate(90)]),
    }


def jpeg_bases() -> dict[str, bytes]:
    grey = Image.fromarray(PIXELS)
    return {
        "grey": saved(grey, "JPEG"),
        "progressive": saved(grey, "JPEG", progressive=True),
        "colour": saved(grey.convert("RGB"), "JPEG"),
        "exif": saved(grey, "JPEG", exif=grey.getexif().tobytes() + b"\0" * 8),
    }


def tiff_bases() -> dict[str, bytes]:
    def written(data: np.ndarray, **how: Any) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, data, **{"photometric": "minisblack", **how})
        return buffer.getvalue()

    ome = {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeY": 4.0, "PhysicalSizeZ": 40.0}
    return {
        "plain": written(PIXELS),
        "pages": written(STACK, metadata=None),
        "lzw": written(STACK, compression="lzw", predictor=True, metadata=None),
        "deflate": written(PIXELS, compression="zlib", tile=(16, 16)),
        "zstd": written(PIXELS.astype(np.uint16), compression="zstd"),
        "lzma": written(PIXELS.astype(np.float32), compression="lzma"),
        "packbits": written(PIXELS, compression="packbits"),
        "jpeg": written(PIXELS, compression="jpeg"),
        "big": written(STACK, bigtiff=True, byteorder=">"),
        "ome": written(STACK, ome=True, metadata=ome),
        "imagej": written(STACK, imagej=True, metadata={"axes": "ZYX", "unit": "um"}),
        "palette": saved(Image.fromarray(PIXELS, mode="P"), "TIFF"),
        "bit": saved(Image.fromarray(PIXELS).convert("1"), "TIFF", compression="group4"),
        "white": written(PIXELS, photometric="miniswhite"),
    }


def look(path: Path, inner: str = "") -> list[Callable[[], object]]:
    """What is done with an image file."""
    return [
        lambda: page_sizes(Plane(path, inner)),
        lambda: read_image(Plane(path, inner), None),
        lambda: read_mask(Plane(path, inner, 0, 0)),
        lambda: read_values(Plane(path, inner, 0, 1)),
    ]


def look_at_volume(path: Path, inner: str = "") -> list[Callable[[], object]]:
    return [
        *look(path, inner),
        lambda: read_image(Plane(path, inner, 0, 0), GreyWindow(0.0, 1000.0)),
        lambda: read_mask(Plane(path, inner, 1, 3)),
        lambda: read_mask(Plane(path, inner, 2, 3)),
        lambda: find_window(
            lambda: [(path.name, read_values(Plane(path, inner, 0, 0)))], (0.1, 99.9)
        ),
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def without_palette() -> bytes:
    """A PNG that says it has a palette, and has none."""
    whole = png_bases()["bit"]
    return whole[:25] + b"\3" + whole[26:]


@cases(260, 1500)
@given(found=damaged(png_bases(), png_fields), sound=st.booleans())
@example(found=("palette", without_palette()), sound=True)
def test_png(place: Path, found: tuple[str, bytes], sound: bool) -> None:
    path = place / f"{found[0]}.png"
    path.write_bytes(with_checksums(found[1]) if sound else found[1])
    attempt("png", *look(path))


@cases(80, 900)
@given(found=damaged(jpeg_bases(), jpeg_fields))
def test_jpeg(place: Path, found: tuple[str, bytes]) -> None:
    path = place / f"{found[0]}.jpg"
    path.write_bytes(found[1])
    attempt("jpeg", *look(path))


@cases(170, 1200)
@given(found=damaged(tiff_bases(), tiff_fields))
def test_tiff(place: Path, found: tuple[str, bytes]) -> None:
    path = place / f"{found[0]}.tif"
    path.write_bytes(found[1])
    attempt("tiff", *look_at_volume(path))


OME_XML = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels {0}>{1}'
    "</Pixels></Image></OME>"
)


@cases(20, 100)
@given(
    attributes=st.dictionaries(
        st.sampled_from(
            ["SizeX", "SizeY", "SizeZ", "SizeC", "SizeT", "Type", "DimensionOrder"]
            + [f"PhysicalSize{axis}{unit}" for axis in "XYZ" for unit in ("", "Unit")]
        ),
        st.sampled_from(
            ["", "0", "-1", "3", "20", "24", "1e999", "nan", "9" * 30, "uint8", "XYZCT"]
        ),
        max_size=12,
    ),
    inner=st.sampled_from(
        ["", "<TiffData/>", '<TiffData IFD="9"/>', "<a>" * 3000, "&x;", "<Channel/>" * 3]
    ),
    whole=st.sampled_from([OME_XML, "<OME", "<OME></OME>", "<OME><Image/></OME>", OME_XML * 2]),
)
def test_ome_headers(place: Path, attributes: dict[str, str], inner: str, whole: str) -> None:
    told = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    path = place / "header.ome.tif"
    text = whole.format(told, inner) if "{" in whole else whole
    with tifffile.TiffWriter(path) as tiff:
        for plane in STACK:
            tiff.write(plane, photometric="minisblack", description=text.encode(), metadata=None)
            text = ""
    attempt("tiff", *look_at_volume(path))


@pytest.fixture(scope="module")
def hdf5_bases(place: Path) -> dict[str, bytes]:
    bases = {}
    for name, how in {
        "plain": {},
        "chunked": {"chunks": (1, 8, 8), "compression": "gzip", "shuffle": True},
    }.items():
        path = place / f"base-{name}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", data=STACK, **how).attrs["resolution"] = (40.0, 4.0, 4.0)
            file.create_dataset("more/mask", data=STACK // 128)
        bases[name] = path.read_bytes()
    return bases


@cases(90, 700)
@given(data=st.data())
def test_hdf5(place: Path, hdf5_bases: dict[str, bytes], data: st.DataObject) -> None:
    name, content = data.draw(damaged(hdf5_bases, hdf5_fields))
    path = place / f"{name}.h5"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    inner = data.draw(st.sampled_from(["raw", "raw", "more/mask", "gone", ""]))
    attempt("hdf5", *look_at_volume(path, inner))


@pytest.fixture(scope="module")
def mrc_bases(place: Path) -> dict[str, bytes]:
    bases = {}
    for name, data in {"u16": STACK.astype(np.uint16), "f32": STACK.astype(np.float32)}.items():
        with mrcfile.new(place / "base.mrc", overwrite=True) as file:
            file.set_data(data)
            file.voxel_size = (40, 40, 400)
        bases[name] = (place / "base.mrc").read_bytes()
    return bases


@cases(60, 700)
@given(data=st.data())
def test_mrc(place: Path, mrc_bases: dict[str, bytes], data: st.DataObject) -> None:
    name, content = data.draw(damaged(mrc_bases, mrc_fields))
    path = place / f"{name}.mrc"
    # A name of its own inode: an open map of the old file must not see the new one.
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    attempt("mrc", *look_at_volume(path))


# JSON

DEEP = "@deep@"
TEXTS = [
    *(
        "",
        ".",
        "..",
        "../../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "a\0b",
        "\ud800",
        "x" * 3000,
    ),
    *("<script>alert(1)</script>", "'; DROP TABLE runs; --", "nan", "9" * 5000, "-1", "é", "\n"),
    *("uint8", "float64", "|O", "<U99999999", "random:0", "tiny", "frozen", "lora", "bytes"),
    *("pickle", "(a+)+$", "con", "*", "[", DEEP),
]
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 7, 255, 1 << 31, 1 << 40, 1 << 63, 1 << 64, 10**30, 10**400]),
    st.sampled_from([0.0, -0.5, 0.5, 1e308, 5e-324, math.nan, math.inf, -math.inf]),
    st.sampled_from(TEXTS),
    st.sampled_from(TEXTS).map(lambda text: [text]),
    st.sampled_from(TEXTS).map(lambda text: {text: text}),
    st.sampled_from([[], {}, [[]], [{}], {"a": []}, [0], [-1, 2], [None], [1, 2, 3, 4], [1.5] * 3]),
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a value: its container and its key."""
    keys: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        keys = list(range(len(value)))
    return [item for key in keys for item in ((value, key), *_places(value[key]))]


@st.composite
def twisted(draw: st.DrawFn, value: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A value of which some parts have been replaced, removed, renamed or repeated."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        places = _places(value)
        if not places:
            break
        container, key = draw(st.sampled_from(range(len(places))).map(places.__getitem__))
        new = copy.deepcopy(draw(values))
        match draw(st.sampled_from(["replace"] * 5 + ["remove", "rename", "add"])):
            case "remove":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[draw(st.sampled_from(TEXTS))] = container.pop(key)
            case "add" if isinstance(container, dict):
                container[draw(st.sampled_from(TEXTS))] = new
            case "add":
                container.append(new)
            case _:
                container[key] = new
    return value


def as_json(value: Any) -> bytes:
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000).encode()


def sealed(content: dict[str, Any]) -> bytes:
    """A record or manifest with the checksum of what it says now."""
    content.pop("sha256", None)
    try:
        digest = json_sha256(content)
    except (ValueError, RecursionError):
        # What has no canonical form has no checksum either; as near as one can come.
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
    return as_json({**content, "sha256": digest})


@contextmanager
def replaced(files: Mapping[Path, bytes]) -> Iterator[None]:
    """Files with another content, for a while."""
    before = {path: path.read_bytes() for path in files}
    try:
        for path, content in files.items():
            path.unlink()
            path.write_bytes(content)
        yield
    finally:
        for path, content in before.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)


@pytest.fixture(scope="module")
def zarr_volumes(place: Path) -> dict[str, Path]:
    plain = place / "plain.zarr"
    zarr.create_array(plain, data=STACK, chunks=(1, 16, 16))
    sharded = place / "sharded.zarr"
    zarr.create_array(sharded, data=STACK, chunks=(1, 8, 8), shards=(2, 16, 16))
    old = place / "old.zarr"
    zarr.create_array(old, data=STACK, chunks=(1, 16, 16), zarr_format=2)
    image = place / "image.zarr"
    group = zarr.open_group(image, mode="w")
    group.create_array("0", data=STACK, chunks=(2, 16, 16))
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    levels = [
        {
            "path": "0",
            "coordinateTransformations": [{"type": "scale", "scale": [40.0, 4.0, 4.0]}],
        }
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    return {"plain": plain, "sharded": sharded, "old": old, "image": image}


@cases(90, 700)
@given(data=st.data())
def test_zarr(zarr_volumes: dict[str, Path], data: st.DataObject) -> None:
    path = zarr_volumes[data.draw(st.sampled_from(sorted(zarr_volumes)))]
    files = sorted(p for p in path.rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(range(len(files))).map(files.__getitem__))
    texts = sorted(p for p in files if p.suffix == ".json" or p.name == ".zarray")
    if data.draw(st.integers(0, 3)):
        file = data.draw(st.sampled_from(range(len(texts))).map(texts.__getitem__))
        content = as_json(data.draw(twisted(json.loads(file.read_bytes()))))
    else:
        _, content = data.draw(damaged({"chunk": file.read_bytes()}, no_fields))
    with replaced({file: content}):
        attempt("zarr", *look_at_volume(path))


# Records


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a record of each regime, as training writes them, and of an evaluation."""
    workspace = init_workspace(tmp_path_factory.mktemp("runs") / "w")[0]
    recipe = Recipe(
        "tiny", "tiny", "0" * 64, preprocessing_of(14, 70, None, None, "x"), "float32", "float16"
    )
    for regime in ("frozen", "lora"):
        kind = "train-head" if regime == "frozen" else "train-lora"
        with new_record(workspace.runs, kind) as draft:
            protocol = Protocol(head="linear")
            save_file(build_head("linear", 64, 0).state_dict(), draft.path("head.safetensors"))
            draft.write_table(
                "epochs.parquet",
                pl.DataFrame(
                    {
                        "epoch": [1, 2],
                        "train_loss": [0.5, 0.4],
                        "val_loss": [0.5, 0.4],
                        "val_iou_fg": [0.1, 0.2],
                        "seconds": [1.0, 1.0],
                    }
                ),
            )
            draft.config = {
                "regime": regime,
                "backbone": "tiny",
                "weights": "random:0",
                "weights_sha256": "0" * 64,
                "longest_edge": 70,
                "pixel_size_nm": None,
                "protocol": protocol.label,
                "protocol_fields": protocol.as_dict(),
                "train_on": "cells",
                "sampling": "natural",
                "seed": 0,
                "head": "bn-linear",
                "precision": "float32",
                "recipe": recipe.identity(),
                "dim": 64,
                "classes": [["background", [0]], ["mitochondria", [255]]],
                "grey_window": [0.0, 255.0],
                "train_slices": ["cells/1"],
                "val_slices": ["cells/2"],
                "run_fingerprint": "f" * 64,
                "epochs_run": 2,
                "train_seconds": 2.0,
            }
    with new_record(workspace.runs, "evaluate") as draft:
        draft.config = {
            "run_id": "x",
            "eval_on": ["cells"],
            "data_keys": ["0" * 64],
            "whole": ["cells"],
        }
    return workspace


def use_run(workspace: Workspace, record_id: str) -> None:
    """All that later commands ask of a trained run."""
    run = find_run(workspace, record_id)
    _ = (run.is_lora, run.spec, run.classes.words, run.classes.scored, run.grey_window)
    _ = (run.precision, run.token_precision, run.token_type, run.protocol.label)
    head = run.load_head(torch.device("cpu"))
    head(torch.zeros(1, run.config["dim"], 2, 2), (4, 4))
    run.check_recipe(run.recipe, "itself")


@cases(130, 1000)
@given(data=st.data())
def test_records(runs: Workspace, data: st.DataObject) -> None:
    ids = list_record_ids(runs.runs)
    record_id = data.draw(st.sampled_from(ids))
    file = runs.runs / record_id / "record.json"
    content = json.loads(file.read_bytes())
    if data.draw(st.integers(0, 9)) == 0:
        _, changed = data.draw(damaged({"record": file.read_bytes()}, no_fields))
    elif data.draw(st.booleans()):
        changed = sealed(data.draw(twisted(content)))
    else:
        content["config"] = data.draw(twisted(content["config"]))
        changed = sealed(content)
    with replaced({file: changed}):
        attempt(
            "record",
            lambda: read_record(runs.runs / record_id),
            lambda: touch(read_record(runs.runs / record_id, verify_files=False)),
            lambda: read_records(runs.runs, ids),
            lambda: use_run(runs, record_id),
            lambda: study_records.StudyRecords(runs),
        )


def touch(record: Record) -> None:
    """What every reader of a record asks of it."""
    home = record.folder.resolve()
    assert record.id == record.folder.name
    assert isinstance(record.kind, str)
    record.config.get("dataset")
    for name in record.content["files"]:
        assert record.file(name).resolve().is_relative_to(home), f"{name} leaves the record"


@cases(4, 60)
@given(data=st.data())
def test_records_in_the_warehouse(
    runs: Workspace, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """What DuckDB refuses is left out; what it takes must not spoil the rest."""
    ids = list_record_ids(runs.runs)
    file = runs.runs / data.draw(st.sampled_from(ids)) / "record.json"
    content = json.loads(file.read_bytes())
    content["config"] = data.draw(twisted(content["config"]))
    database = tmp_path_factory.mktemp("database") / "w.duckdb"
    with replaced({file: sealed(content)}):
        attempt("record", lambda: sync(runs.runs, database))


@cases(30, 300)
@given(data=st.data())
def test_files_of_a_record(runs: Workspace, data: st.DataObject) -> None:
    """Heads and tables whose checksums are right, and whose content is not."""
    record_id = next(name for name in list_record_ids(runs.runs) if "train-head" in name)
    folder = runs.runs / record_id
    name = data.draw(st.sampled_from(["head.safetensors", "epochs.parquet"]))
    _, content = data.draw(damaged({name: (folder / name).read_bytes()}, no_fields))
    record = json.loads((folder / "record.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    record["files"][name] = {"bytes": len(content), "sha256": digest}
    with replaced({folder / name: content, folder / "record.json": sealed(record)}):
        attempt(
            "record",
            lambda: use_run(runs, record_id),
            lambda: read_records(runs.runs, [record_id]),
        )


@cases(8, 120)
@given(data=st.data())
def test_tables_of_a_record_in_the_warehouse(
    runs: Workspace, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A table that DuckDB cannot read keeps no record out but its own."""
    ids = list_record_ids(runs.runs)
    record_id = next(name for name in ids if "train-head" in name)
    folder = runs.runs / record_id
    name = "epochs.parquet"
    _, content = data.draw(damaged({name: (folder / name).read_bytes()}, no_fields))
    record = json.loads((folder / "record.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    record["files"][name] = {"bytes": len(content), "sha256": digest}
    database = tmp_path_factory.mktemp("database") / "w.duckdb"

    def take_in() -> None:
        report = sync(runs.runs, database)
        assert {problem.record_id for problem in report.problems} <= {record_id}
        assert {*report.ingested, record_id} == set(ids)

    with replaced({folder / name: content, folder / "record.json": sealed(record)}):
        attempt("record", take_in)


# Feature sets


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a feature set."""
    # Local: it imports what models need.
    from emcache.cache.extract import run_extraction

    place = tmp_path_factory.mktemp("features")
    write_domain(place / "cells", STYLES["sharp"], slices=6, size=56, seed=3)
    workspace = init_workspace(place / "w")[0]
    options = {"images": "images/*.png", "masks": "masks/*.png"}
    add_dataset(workspace, "cells", "folder", place / "cells", options, Quiet())
    job = plan_extraction(
        workspace, Selection("cells", None), ExtractOptions("tiny", "random:0", 56), Quiet()
    )
    run_extraction(job, Quiet())
    return workspace


def use_features(folder: Path) -> None:
    found = FeatureSet.open(folder)
    _ = (found.fingerprint, found.token_bytes, found.name, found.description["backbone"])
    for position in range(min(len(found.slices), 2)):
        found.tokens(position)
    found.pooled()
    found.cls()


@cases(100, 900)
@given(data=st.data())
def test_feature_sets(features: Workspace, data: st.DataObject) -> None:
    (folder,) = (p for p in features.cache.iterdir() if p.is_dir())
    manifest = json.loads((folder / "manifest.json").read_bytes())
    which = data.draw(st.sampled_from(["manifest", "zarr", "shard", "bytes"]))
    files: dict[Path, bytes] = {}
    if which == "manifest":
        content = sealed(data.draw(twisted(manifest)))
    elif which == "bytes":
        _, content = data.draw(damaged({"m": (folder / "manifest.json").read_bytes()}, no_fields))
    else:
        names = [n for n in manifest["files"] if n.endswith("zarr.json") == (which == "zarr")]
        name = data.draw(st.sampled_from(names))
        old = (folder / name).read_bytes()
        if which == "zarr":
            new = as_json(data.draw(twisted(json.loads(old))))
        else:
            _, new = data.draw(damaged({name: old}, no_fields))
        digest = hashlib.sha256(new).hexdigest()
        manifest["files"][name] = {"bytes": len(new), "sha256": digest}
        files[folder / name] = new
        content = sealed(manifest)
    with replaced({**files, folder / "manifest.json": content}):
        attempt(
            "feature set",
            lambda: use_features(folder),
            lambda: list_feature_sets(features.cache),
        )


# Weights


class _Trap:
    """Unpickling this would make a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._made = function, arguments

    def __reduce__(self) -> Any:
        return self._made


def small_state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}


def weight_bases() -> dict[str, bytes]:
    def stored(value: Any, **how: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, **how)
        return buffer.getvalue()

    return {
        "plain.safetensors": save(small_state()),
        "plain.pth": stored(small_state()),
        "wrapped.bin": stored({"model": small_state(), "epoch": 3}),
        "legacy.pth": stored(small_state(), _use_new_zipfile_serialization=False),
    }


def rezipped(data: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """A torch file with one part of its archive changed, and the archive whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            new.writestr(item, change(content) if item.filename.endswith(name) else content)
    return buffer.getvalue()


def use_weights(path: Path) -> None:
    state = read_weights_file(path)
    backbone = random_backbone(TINY, 0)
    backbone.load(state, "these")


@cases(100, 1000)
@given(data=st.data())
def test_weights(place: Path, data: st.DataObject) -> None:
    name, content = data.draw(damaged(weight_bases(), no_fields))
    if (
        name.endswith((".pth", ".bin"))
        and not name.startswith("legacy")
        and data.draw(st.booleans())
    ):
        whole = weight_bases()[name]
        change = data.draw(st.sampled_from(["data.pkl", "data.pkl", "data/0", "version"]))

        def damage(part: bytes) -> bytes:
            return data.draw(damaged({"p": part + b"\0" * 16}, no_fields))[1]

        content = rezipped(whole, change, damage)
    path = place / name
    path.write_bytes(content)
    attempt("weights", lambda: use_weights(path))


@cases(60, 900)
@given(data=st.data())
def test_safetensors_headers(place: Path, data: st.DataObject) -> None:
    whole = save(small_state())
    size = struct.unpack_from("<Q", whole)[0]
    header = json.loads(whole[8 : 8 + size])
    text = as_json(data.draw(twisted(header)))
    if data.draw(st.integers(0, 4)) == 0:
        # Twice the same key, and a key within a key's place.
        text = text[:-1] + b"," + text[1:]
    length = data.draw(
        st.sampled_from([len(text)] * 8 + [1 << 31, (1 << 63) - 1, (1 << 64) - 1, 0])
    )
    path = place / "header.safetensors"
    path.write_bytes(struct.pack("<Q", length) + text + whole[8 + size :])
    attempt("weights", lambda: use_weights(path))


SHARDED = {
    "metadata": {"total_size": 32},
    "weight_map": {"a.weight": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"},
}
CONFIG = {
    "model_type": "clip",
    "vision_config": {"hidden_act": "gelu", "num_attention_heads": 2, "layer_norm_eps": 1e-6},
}


@cases(40, 400)
@given(data=st.data())
def test_folders_of_weights(place: Path, data: st.DataObject) -> None:
    """An index of shards, and a configuration beside them, that say anything."""
    folder = place / "shards"
    folder.mkdir(exist_ok=True)
    for name, file in SHARDED["weight_map"].items():
        save_file({name: small_state()[name]}, folder / file)
    index = as_json(data.draw(st.one_of(st.just(SHARDED), twisted(SHARDED))))
    (folder / "m.safetensors.index.json").write_bytes(index)
    (folder / "config.json").write_bytes(as_json(data.draw(twisted(CONFIG))))
    state = random_backbone(TINY, 0).model.state_dict()
    save_file(state, place / "shards" / "m.safetensors")
    attempt(
        "weights",
        lambda: use_weights(folder / "m.safetensors"),
        lambda: fit_weights(TINY, locate_weights(folder / "m.safetensors", "tiny"), "these"),
        lambda: fit_weights(
            TINY, locate_weights(folder / "m.safetensors.index.json", "tiny"), "these"
        ),
        lambda: locate_weights(folder, "tiny"),
    )


@cases(40, 400)
@given(data=st.data())
def test_pickles(place: Path, data: st.DataObject) -> None:
    """Every way in that a pickle has; none may be gone through."""
    canary = place / "canary"
    command = f"touch {canary}"
    traps: list[Any] = [
        _Trap(os.system, command),
        _Trap(Path.touch, canary),
        _Trap(eval, f"__import__('os').system({command!r})"),
        _Trap(exec, f"open({str(canary)!r}, 'w')"),
        _Trap(open, str(canary), "w"),
        _Trap(torch.load, str(canary)),
        _Trap(getattr, os, "system"),
        _Trap(__import__, "antigravity"),
        _Trap(torch.zeros, 1 << 30, 1 << 30),
        _Trap(bytearray, 1 << 40),
        _Trap(torch.empty, 3),
        {1: torch.ones(2)},
        [torch.ones(2)],
        {"a": torch.ones(2, device="meta")},
        {"a": torch.eye(3).to_sparse()},
        {"a": torch.ones(1).expand(1 << 20, 1 << 20)},
        {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)},
        {"a": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
        {"cls_token": torch.ones(1, dtype=torch.complex64).expand(1, 1, 64)},
        torch.nn.Linear(2, 2),
        {"model": {"model": {"model": small_state()}}},
        {"a": torch.nn.Parameter(torch.ones(2))},
    ]
    trap = data.draw(st.sampled_from(range(len(traps))).map(traps.__getitem__))
    state = random_backbone(TINY, 0).model.state_dict()
    value = data.draw(
        st.sampled_from([trap, {"model": trap}, {"a": trap}, [trap], {**state, "pos_embed": trap}])
    )
    path = place / data.draw(st.sampled_from(["trap.pth", "trap.bin", "trap.safetensors"]))
    how = data.draw(st.sampled_from(["torch", "legacy", "pickle"]))
    try:
        if how == "pickle":
            path.write_bytes(pickle.dumps(value, protocol=data.draw(st.integers(0, 5))))
        else:
            torch.save(value, path, _use_new_zipfile_serialization=how == "torch")
    except (TypeError, AttributeError, RuntimeError, NotImplementedError, pickle.PicklingError):
        path.write_bytes(b"")
    attempt("weights", lambda: use_weights(path))
    assert not canary.exists(), "a pickle was carried out"


@pytest.fixture(scope="module")
def adapter_folder(place: Path) -> Path:
    """An adapter of the small backbone, as training saves it."""
    from emcache.models.lora import attach_adapter

    folder = place / "adapter"
    attach_adapter(random_backbone(TINY, 0), 4, 8.0, ("attn.qkv", "attn.proj"), 0).save(folder)
    return folder


@cases(15, 150)
@given(data=st.data())
def test_adapters(adapter_folder: Path, data: st.DataObject) -> None:
    from emcache.models.lora import load_adapter

    file = adapter_folder / data.draw(st.sampled_from([CONFIG_FILE, CONFIG_FILE, WEIGHTS_FILE]))
    if file.name == CONFIG_FILE:
        content = as_json(data.draw(twisted(json.loads(file.read_bytes()))))
    else:
        _, content = data.draw(damaged({"a": file.read_bytes()}, no_fields))
    backbone = random_backbone(TINY, 0)
    with replaced({file: content}):
        attempt(
            "weights",
            lambda: (check_adapter_config(adapter_folder), load_adapter(backbone, adapter_folder)),
        )


# emcache.toml and studies

TABLES = {
    "datasets": {
        "cells": {
            "layout": "folder",
            "root": "cells",
            "images": "images/*.png",
            "masks": "masks/*.png",
            "pair": "stem",
            "split": ["random:0.3:42"],
            "voxel_size_nm": [40.0, 4.0, 4.0],
            "classes": {"background": [0], "mitochondria": [255]},
        },
        "volume": {
            "layout": "stack",
            "root": "cells",
            "images": "volume.tif",
            "masks": "volume.zarr:/a/b",
            "axis": "y",
            "split": {"train": ["0", "1"], "test": ["2"]},
            "mask_threshold": 1,
            "grey_window": [0.0, 99.0],
        },
        "other": {"layout": "lucchi++", "root": "/nowhere"},
    },
    "weights": {"one": {"path": "one.pth", "sha256": "0" * 64}},
}
STUDY = {
    "name": "sizes",
    "grid": [
        {
            "backbones": ["tiny", "dinov2-small"],
            "regimes": ["frozen", "lora"],
            "train_on": ["vnc", ["lucchi++", "vnc"]],
            "seeds": "0-4",
            "sampling": ["natural"],
            "weights": {"tiny": "random:0", "dinov2-small": "small.pth"},
            "longest_edge": 1022,
            "pixel_size_nm": 8.0,
            "precision": "auto",
            "dtype": "float16",
            "accumulate": 1,
            "checkpoint": False,
            "accept_audit": False,
            "evaluate_on": ["lucchi++"],
            "protocol": {"name": "paper", "max_epochs": 3, "lora_rank": 4},
        }
    ],
}
LINES = [
    "a = " + "[" * 5000 + "]" * 5000,
    "a = " + "{b = " * 3000 + "1" + "}" * 3000,
    "a" + ".a" * 20_000 + " = 1",
    "a = " + "9" * 6000,
    "a = 0x" + "f" * 6000,
    "longest_edge = 0x" + "f" * 6000,
    "a = 1e999999999",
    "a = 1979-13-45T99:99:99Z",
    "a = 07:32:00",
    'a = "\\u0000"',
    'a = "\\ud800"',
    "a = 1\na = 2",
    "[datasets]\n[datasets]",
    "[[datasets]]",
    "[datasets.cells.x.y.z]\na = 1",
    "datasets.cells = 3",
    "[datasets.'']",
    '[datasets."../x"]\nlayout = "vnc"\nroot = "."',
    '[datasets.cells2]\nlayout = "folder"\nroot = "cells"\nimages = "' + "**/" * 1500 + '*.png"',
    '[datasets.cells2]\nlayout = "folder"\nroot = "cells"\nimages = "."',
    '[datasets.cells2]\nlayout = "folder"\nroot = "cells"\nimages = "../../**/*.png"',
    '[datasets.cells2]\nlayout = "folder"\nroot = "' + "x/" * 3000 + '"',
    '[datasets.cells2]\nlayout = "folder"\nroot = "' + "x" * 300 + '"',
    '[datasets.cells2]\nlayout = "stack"\nroot = "cells"\nimages = "a\\u0000b"',
    '[datasets.cells2]\nlayout = "stack"\nroot = "cells"\nimages = "/etc/passwd"',
    '[datasets.cells2]\nlayout = "stack"\nroot = "cells"\nimages = "' + "x" * 300 + '.tif"',
    '[datasets.cells2]\nlayout = "stack"\nroot = "cells"\nimages = "images/0.png:/../../x"',
    "\ufeff[datasets]",
    "grid = [{}]",
    "[[grid]]\n" * 3,
    "[[grid]]\nbackbones = ["
    + "'tiny'," * 3000
    + "]\ntrain_on = ["
    + ",".join(f"'d{i}'" for i in range(3000))
    + "]\nseeds = '0-4'",
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '" + "9" * 5000 + "'",
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = 0x" + "f" * 5000,
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '0'\npixel_size_nm = 0x" + "f" * 500,
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '0'\npixel_size_nm = inf",
    "[[grid]]\nbackbones = ['timm:\\u0000']\ntrain_on = ['a']\nseeds = '0'",
    "[[grid]]\nbackbones = ['" + "x" * 9000 + "']\ntrain_on = ['a']\nseeds = '0'",
    '[[grid]]\nbackbones = ["tiny"]\ntrain_on = ["a"]\nseeds = "0"\nweights = "a\\u0000"',
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '0'\nweights = '"
    + "x/" * 3000
    + "'",
    "[[grid]]\nbackbones = ['tiny']\ntrain_on = ['a']\nseeds = '0'\n[grid.protocol]\nbatch = 0x"
    + "f" * 500,
]


def as_toml(value: Any) -> bytes | None:
    """TOML of a twisted value; None where TOML has no such thing."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(part) for key, part in item.items() if part is not None}
        if isinstance(item, list):
            return [plain(part) for part in item if part is not None]
        return item

    try:
        return tomlkit.dumps(plain(value)).replace(DEEP, "deep").encode()
    except (ValueError, TypeError, RecursionError, tomlkit.exceptions.TOMLKitError):
        return None


@st.composite
def toml_texts(draw: st.DrawFn, table: dict[str, Any]) -> bytes:
    base = as_toml(table)
    assert base is not None
    match draw(st.sampled_from(["twisted"] * 5 + ["damaged", "line"])):
        case "damaged":
            return draw(damaged({"toml": base}, lambda _: []))[1]
        case "line":
            line = draw(st.sampled_from(LINES)).encode()
            return draw(st.sampled_from([line, base + b"\n" + line, line + b"\n" + base]))
        case _:
            return as_toml(draw(twisted(table))) or base


@pytest.fixture(scope="module")
def configured(place: Path) -> Workspace:
    workspace = init_workspace(place / "configured")[0]
    write_domain(workspace.root / "cells", STYLES["sharp"], slices=5, size=28, seed=3)
    tifffile.imwrite(workspace.root / "cells" / "volume.tif", STACK, photometric="minisblack")
    return workspace


def use_datasets(workspace: Workspace) -> None:
    for name in workspace.dataset_names():
        use_dataset(workspace, name)


def use_dataset(workspace: Workspace, name: str) -> None:
    with suppress(EmcacheError):
        options = workspace.dataset_options(name)
        list_dataset(name, options, workspace.root, open_file_index(workspace))
        load_dataset(workspace, name)


@cases(60, 500)
@given(text=toml_texts(TABLES))
def test_emcache_toml(configured: Workspace, text: bytes) -> None:
    configured.config_path.write_bytes(text)
    options = {"layout": "vnc", "root": "x"}
    attempt(
        "emcache.toml",
        lambda: use_datasets(configured),
        lambda: load_dataset(configured, "volume"),
        lambda: find_workspace_weights(configured, "one", TINY),
        lambda: list_weights(configured),
        lambda: configured.add_weights("two", {"path": "two.pth", "sha256": "1" * 64}),
        lambda: configured.add_dataset("another", options),
    )


def use_study(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    attempt("study", lambda: [cell.words for cell in read_study(path).cells])


@cases(60, 500)
@given(text=toml_texts(STUDY))
def test_studies(place: Path, text: bytes) -> None:
    use_study(place / "study.toml", text)


def test_every_line_as_a_study(place: Path) -> None:
    for line in LINES:
        use_study(place / "study.toml", line.encode())


PARAMETERS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(TEXTS),
    st.from_regex(r"[a-z]{0,5}[:=,@-]{1,2}[0-9a-z.:,*\[\]!-]{0,20}", fullmatch=True),
    st.sampled_from(["random:0.5:" + "9" * 5000, "block:nan:1", "block:0.1:99999999999", "a=@"]),
    st.sampled_from(["a=@/dev/zero", "random:1e999:0", "0-" + "9" * 5000, "a=" + "9" * 5000]),
)


@cases(100, 800)
@given(text=PARAMETERS, other=PARAMETERS)
def test_options_as_typed(configured: Workspace, text: str, other: str) -> None:
    ids = ["a", "b", "c", "0", "1"]
    root = configured.root / "cells"
    index = open_file_index(configured)
    attempt(
        "option",
        lambda: parse_classes([text, other]),
        lambda: parse_seeds(text),
        lambda: Selection.parse(text),
        lambda: assign_splits(ids, [text]),
        lambda: assign_splits(ids, [text, other]),
        lambda: assign_splits(ids, read_split_lists([text, other])),
        lambda: glob_images(root, text),
        lambda: locate(root, text),
        lambda: find_run(configured, text),
        lambda: find_weights(text, TINY, index),
        lambda: open_volume(root / text.lstrip("/"), other),
    )


# SQL

SQL_VALUES = st.one_of(
    PARAMETERS,
    st.sampled_from(
        ["nan", "inf", "-inf", "1e308", "-0", '"', '""', '"' * 3, "NULL", "true", "🦆"]
    ),
    st.sampled_from(["9" * 19, "9" * 39, "9" * 400, "-" + "9" * 5000, "1e999999", "." * 50]),
    st.sampled_from(["x' OR 1=1 --", "'; ATTACH 'x' AS y; --", "$1", "read_csv('/etc/passwd')"]),
)
ASKED = [
    "SELECT $a AS a",
    "SELECT $a::INT AS a",
    "SELECT $a::TIMESTAMP AS a",
    "SELECT repeat('x', $a) AS a",
    "FROM runs WHERE seed = $a",
    "FROM runs WHERE train_on = $a LIMIT 3",
    "FROM runs LIMIT $a",
    "SELECT [$a, $a] AS a, {'x': $a} AS b, MAP {$a: 1} AS c",
    "SELECT $a || $a AS a",
    "SELECT list_value($a) AS a",
    "SELECT regexp_matches('aaaaaaaaaaaaaaaaaaaaaaaa!', $a) AS a",
    "SELECT $a ORDER BY $a",
    "SELECT CAST($a AS UUID) AS a, CAST($a AS BLOB) AS b",
    "SELECT CAST($a AS JSON) AS a",
    "SELECT strptime('2020', $a) AS a",
    "SELECT format($a, 1, 2) AS a, printf($a, 1) AS b",
]


@pytest.fixture(scope="module")
def database(runs: Workspace) -> Path:
    sync(runs.runs, runs.warehouse)
    return runs.warehouse


@cases(35, 300)
@given(sql=st.sampled_from(ASKED), value=SQL_VALUES)
def test_sql_parameters(database: Path, sql: str, value: str) -> None:
    attempt("sql", lambda: run_query(database, sql, {"a": value}))


@cases(15, 80)
@given(data=st.data(), value=SQL_VALUES)
def test_parameters_of_named_queries(database: Path, data: st.DataObject, value: str) -> None:
    query = data.draw(st.sampled_from([q for q in list_queries() if q.parameters]))
    given_ = {data.draw(st.sampled_from(query.parameters)).name: value}
    attempt("sql", lambda: run_named_query(database, query.name, given_))


STATEMENTS = [
    "SELECT \ud800",
    "SELECT '\0' AS a",
    "\0",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT " + "1+" * 5000 + "1 AS a",
    "SELECT " + "[" * 500 + "1" + "]" * 500 + " AS a",
    "SELECT MAP {'a': 1} AS a",
    "SELECT uuid() AS a",
    "SELECT 'a'::BLOB AS a",
    "SELECT TIMESTAMP_NS '2020-01-01' AS a, TIMESTAMPTZ '2020-01-01' AS b, TIME '1:1' AS c",
    "SELECT 1::UHUGEINT AS a, 1::DECIMAL(38, 38) AS b",
    "SELECT DATE 'infinity' AS a, TIMESTAMP '-infinity' AS b, DATE '5881580-07-10' AS c",
    "SELECT '101'::BIT AS a, [1, 2]::INT[2] AS b, union_value(x := 1) AS c",
    "SELECT NULL AS a, [NULL] AS b, {} AS c",
    "SELECT [] AS a",
    "SELECT MAP {} AS a",
    "SELECT {'a': {'b': MAP {1: [INTERVAL 1 DAY]}}} AS a",
    'SELECT 1 AS ""',
    'SELECT 1 AS "a""b"',
    'SELECT 1 AS "a\nb", 2 AS "\U0001f986"',
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "DESCRIBE runs",
    "SUMMARIZE runs",
    "PRAGMA version",
    "CALL duckdb_tables()",
    "SHOW ALL TABLES",
    "BEGIN",
    "PREPARE x AS SELECT 1",
    "CREATE TEMP TABLE x AS SELECT 1",
    "SET VARIABLE x = 1",
    "FROM duckdb_settings()",
    "SELECT error('x')",
    "PIVOT runs ON seed USING count(*)",
    "VALUES (1), ('x')",
    "SELECT * FROM (VALUES (1, 2)) t(a, a)",
    "SELECT 1;",
    ";;;",
    "/* " + "x" * 10_000,
    "SELECT '" + "x" * 100_000 + "' AS a",
    'SELECT "' + "x" * 100_000 + '"',
]


@cases(40, 150)
@given(sql=st.one_of(st.sampled_from(STATEMENTS), st.text(max_size=60)))
def test_statements(database: Path, sql: str) -> None:
    attempt("sql", lambda: run_query(database, sql, {}).rows())
