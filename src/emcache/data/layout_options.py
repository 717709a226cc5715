"""The options that each layout of a dataset has, and what they can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from emcache.data.classes import class_rule
from emcache.data.grey import GreyWindow
from emcache.data.pairing import Rule
from emcache.data.plane import AXES
from emcache.data.scramble import Scramble
from emcache.errors import UsageError
from emcache.storage.workspace import FIRST_NAME

_LARGEST = 1e300


def check_options(layout: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a layout does not have, or of the wrong kind.

    A mistyped ``spilt`` would otherwise leave the default split in silence.

    Raises:
        UsageError: The option is named.
    """
    allowed = _OPTIONS[layout]
    for name, value in options.items():
        if name in ("layout", "root"):
            continue
        if name not in allowed:
            raise UsageError(
                f"layout {layout} has no option {name!r:.200}; known: "
                f"{', '.join(allowed) or 'none'}.",
                subject=name,
            )
        what, fits = allowed[name]
        if not fits(value):
            raise UsageError(f"{name} cannot be {value!r:.200}; expected {what}.", subject=name)
    if "grey_window" in options:
        GreyWindow(*map(float, options["grey_window"]))
    class_rule(options.get("mask_threshold"), options.get("classes"))
    if "scramble" in options:
        Scramble.parse(options["scramble"])
    by_suffix = options.get("pair") == Rule.SUFFIX
    if by_suffix != ("mask_suffix" in options) and (by_suffix or "pair" in options):
        raise UsageError(
            f"pairing by suffix needs a mask_suffix and no other rule; found pair = "
            f"{options['pair']!r:.200} {'without' if by_suffix else 'with'} one: give "
            f"--mask-suffix alone, as --mask-suffix _label.",
            subject="mask_suffix",
        )
    for name in ("pair", "split", "mask_threshold", "classes", "scramble"):
        named = "masks" in options or "mask_suffix" in options
        if layout in ("folder", "stack") and name in options and not named:
            raise UsageError(
                f"{name} says something of masks, and none are named; add masks, or leave {name} "
                f"out.",
                subject=name,
            )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_suffix(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "/" not in value


def _is_threshold(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 255


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 2


def _are_numbers(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        # So that differences of two are numbers still; not a number is not between either.
        and all(-_LARGEST < v < _LARGEST for v in value)
    )


def _is_voxel_size(value: object) -> bool:
    return _are_numbers(value, 3) and all(v > 0 for v in value)  # type: ignore[attr-defined]


def _is_split(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(isinstance(k, str) and _is_split(v) for k, v in value.items())
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _are_classes(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(ids, list) and ids and all(type(i) is int for i in ids) for ids in value.values()
    )


_COMMON: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "mask_threshold": ("a whole number from 1 to 255", _is_threshold),
    "classes": ("a table of lists of whole numbers, NAME = [VALUE]", _are_classes),
    "grey_window": ("two numbers, [black, white]", lambda value: _are_numbers(value, 2)),
    "every": ("a whole number of at least 2", _is_step),
    "scramble": ("string or string:SPLIT", _is_text),
    FIRST_NAME: ("the name that the dataset was added by", _is_text),
    "voxel_size_nm": ("three positive numbers, [z, y, x] in nanometres", _is_voxel_size),
}
_SPLIT = ("a list of split rules, or a table of lists of slices", _is_split)
_OPTIONS: Mapping[str, Mapping[str, tuple[str, Callable[[object], bool]]]] = {
    **dict.fromkeys(("lucchi++", "kasthuri++", "vnc"), _COMMON),
    "folder": {
        "images": ("a pattern below the root", _is_text),
        "masks": ("a pattern below the root", _is_text),
        "pair": (f"one of {', '.join(Rule)}", lambda value: value in list(Rule)),
        "mask_suffix": ("the end of the masks' names, as _label", _is_suffix),
        "split": _SPLIT,
        **_COMMON,
    },
    "stack": {
        "images": ("a file below the root, with :/ARRAY behind it in HDF5 and Zarr", _is_text),
        "masks": ("a file below the root, with :/ARRAY behind it in HDF5 and Zarr", _is_text),
        "axis": (f"one of {', '.join(AXES)}", lambda value: value in AXES),
        "split": _SPLIT,
        **_COMMON,
    },
}
