"""The options that each layout of a dataset has, and what they can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import Field, StringConstraints

from emcache.data.classes import class_rule
from emcache.data.pairing import Rule, Scramble
from emcache.data.plane import AXES
from emcache.data.resize import GreyWindow
from emcache.errors import UsageError
from emcache.validation import Misfit, Table, check

_Text = Annotated[str, StringConstraints(min_length=1)]
# So that differences of two are numbers still.
_Number = Annotated[float, Gt(-1e300), Lt(1e300)]
_Names = Annotated[list[str], Len(1)]


def _may_be(expected: str) -> Any:
    """A key that may be left out."""
    return Field(None, description=expected)


_FILE = _may_be("a file below the root, with :/ARRAY behind it in HDF5 and Zarr")
_PATTERN = _may_be("a pattern below the root")


class _Options(Table):
    """What every layout has."""

    mask_threshold: Annotated[int, Ge(1), Le(255)] = _may_be("a whole number from 1 to 255")
    classes: dict[str, Annotated[list[int], Len(1)]] = _may_be(
        "a table of lists of whole numbers, NAME = [VALUE]"
    )
    grey_window: Annotated[list[_Number], Len(2, 2)] = _may_be("two numbers, [black, white]")
    every: Annotated[int, Ge(2)] = _may_be("a whole number of at least 2")
    scramble: _Text = _may_be("string or string:SPLIT")
    first_name: _Text = _may_be("the name that the dataset was added by")
    voxel_size_nm: Annotated[list[Annotated[_Number, Gt(0)]], Len(3, 3)] = _may_be(
        "three positive numbers, [z, y, x] in nanometres"
    )


class _SplitOptions(_Options):
    """What layouts have whose split is the user's."""

    split: _Names | Annotated[dict[str, _Names], Len(1)] = _may_be(
        "a list of split rules, or a table of lists of slices"
    )


class _FolderOptions(_SplitOptions):
    images: _Text = _PATTERN
    masks: _Text = _PATTERN
    pair: Literal[tuple(rule.value for rule in Rule)] = Field(  # type: ignore[valid-type]
        None, description=f"one of {', '.join(Rule)}"
    )
    mask_suffix: Annotated[str, StringConstraints(min_length=1, pattern="^[^/]*$")] = _may_be(
        "the end of the masks' names, as _label"
    )


class _StackOptions(_SplitOptions):
    images: _Text = _FILE
    masks: _Text = _FILE
    axis: Literal[tuple(AXES)] = Field(  # type: ignore[valid-type]
        None, description=f"one of {', '.join(AXES)}"
    )


_MODELS: Mapping[str, type[_Options]] = {
    **dict.fromkeys(("lucchi++", "kasthuri++", "vnc"), _Options),
    "folder": _FolderOptions,
    "stack": _StackOptions,
}


def check_options(layout: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a layout does not have, or of the wrong kind.

    A mistyped ``spilt`` would otherwise leave the default split in silence.

    Raises:
        UsageError: The option is named.
    """
    own = {name: value for name, value in options.items() if name not in ("layout", "root")}
    found = check(_MODELS[layout], own)
    if isinstance(found, Misfit) and found.kind == "unknown":
        raise UsageError(
            f"layout {layout} has no option {found.key!r:.200}; {found.known_keys}.",
            subject=found.key,
        )
    if isinstance(found, Misfit):
        raise UsageError(
            f"{found.path[0]} cannot be {options[found.path[0]]!r:.200}; expected "
            f"{found.expected}.",
            subject=found.key,
        )
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
