"""What the tables of a study have in common: keys, and values that can be."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from emcache.cache.recipe import TokenType
from emcache.errors import StudyError
from emcache.models.weights import is_named

_LONGEST_NAME = 1000

Allowed = Mapping[str, tuple[str, Callable[[object], bool]]]
"""What the value of each key can be: in words, and whether one is."""


def weights_of(
    path: Path, backbone: str, weights: str | Mapping[str, str], short_names: Collection[str]
) -> str:
    """The weights of one backbone.

    Args:
        path: The study's file, which names of files start from.
        backbone: Whose.
        weights: What its table says, for all backbones or for each.
        short_names: Of weights, which are not files.

    Raises:
        StudyError: They say nothing of this backbone.
    """
    if isinstance(weights, str):
        text = weights
    elif backbone in weights:
        text = weights[backbone]
    else:
        raise StudyError(
            f"weights of {path} say nothing of {backbone}; expected a line for each backbone.",
            subject=backbone,
        )
    if is_named(text) or text in short_names:
        return text
    # A file is named relative to the study, wherever the command runs.
    return os.path.realpath(path.parent / text)


def check_keys(path: Path, place: str, table: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse keys that a table does not have.

    Args:
        path: The study's file, for errors.
        place: What stands before the key, as ``grid.``.
        table: The table.
        known: Its keys.

    Raises:
        StudyError: The key is named, and one that it resembles.
    """
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise StudyError(
                f"{path} has an unknown key {place}{key}; {hint}known: {', '.join(known)}.",
                subject=key,
            )


def check_values(path: Path, table: Mapping[str, Any], allowed: Allowed) -> None:
    """Refuse values that cannot be.

    Raises:
        StudyError: The key is named.
    """
    for name, value in table.items():
        what, fits = allowed[name]
        if not fits(value):
            raise StudyError(
                f"{name} of {path} cannot be {value!r:.200}; expected {what}.", subject=name
            )


def are_texts(value: object) -> bool:
    """Whether it is a list of names, not empty."""
    return isinstance(value, list) and bool(value) and all(is_name(v) for v in value)


def is_name(value: object) -> bool:
    """Whether it is a text of a length that can be read."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME


def are_trainings(value: object) -> bool:
    """Whether it is a list of datasets, or of lists of datasets."""
    return isinstance(value, list) and bool(value) and all(map(_is_training, value))


def _is_training(value: object) -> bool:
    return is_name(value) or are_texts(value)


def each_of(*allowed: str) -> Callable[[object], bool]:
    """A test for lists of nothing but these."""
    return lambda value: are_texts(value) and set(value) <= set(allowed)  # type: ignore[call-overload]


Regime = Literal["frozen", "lora"]

FEATURES: Allowed = {
    "backbones": ("a list of names", are_texts),
    "regimes": ("a list of frozen and lora", each_of(*get_args(Regime))),
    "train_on": ("a list of datasets, or of lists of datasets", are_trainings),
    "weights": (
        "pretrained, random:SEED, hf:REPOSITORY, a short name, a file, or a table of these by "
        "backbone",
        lambda v: isinstance(v, str) or (isinstance(v, dict) and are_texts([*v.values()])),
    ),
    "longest_edge": ("a number of pixels", lambda v: isinstance(v, int) and v > 0),
    "precision": ("auto, float32 or bfloat16", lambda v: v in ("auto", "float32", "bfloat16")),
    "dtype": ("float16 or float32", lambda v: v in get_args(TokenType)),
}
"""Keys that trainings and gaps share."""
