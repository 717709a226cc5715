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
import json
import math
import os
import resource
import signal
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from emcache.data.images import page_sizes, read_image, read_mask, read_values
from emcache.data.plane import Plane
from emcache.data.resize import GreyWindow, find_window
from emcache.errors import EmcacheError, WarehouseError
from emcache.storage.hashing import json_sha256

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


class HangError(BaseException):
    """Raised by the alarm; no reader catches it."""


def status(field: str) -> int:
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
    grown = status("VmHWM") - pages * resource.getpagesize()
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


NUMBERS = [
    *(0, 1, 2, 3, 4, 7, 8, 9, 16, 17, 32, 64, 100, 127, 128, 255, 256, 257, 1000, 4096),
    *(1 << 15, (1 << 16) - 1, 1 << 16, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
    *(1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
]


Field = tuple[int, str]
"""Where a number stands, and how ``struct`` reads it."""


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


PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20), np.uint8)


STACK = np.random.default_rng(1).integers(0, 256, (3, 24, 20), np.uint8)


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


PARAMETERS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(TEXTS),
    st.from_regex(r"[a-z]{0,5}[:=,@-]{1,2}[0-9a-z.:,*\[\]!-]{0,20}", fullmatch=True),
    st.sampled_from(["random:0.5:" + "9" * 5000, "block:nan:1", "block:0.1:99999999999", "a=@"]),
    st.sampled_from(["a=@/dev/zero", "random:1e999:0", "0-" + "9" * 5000, "a=" + "9" * 5000]),
)
