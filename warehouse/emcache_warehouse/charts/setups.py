"""What the bars and panels of a chart differ in, and what they have in common.

Rows that differ in anything but the seed never share a mark. What differs goes into the labels;
what is the same everywhere goes into the subtitle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from emcache_warehouse.charts.theme import SEPARATOR
from emcache_warehouse.choice import LABEL

_SIZES = ("small", "base", "large", "giant", "l", "h")


@dataclass(frozen=True, slots=True)
class Setups:
    """The setups of some rows; a setup is everything but data and seed."""

    labels: tuple[str, ...]
    """Label of each row's setup, lines separated by a newline."""
    order: tuple[str, ...]
    """Every label once, in the order to draw them."""
    common: str
    """What all setups have in common, in words."""


def describe_setups(frame: pl.DataFrame) -> Setups:
    """Tell the setups of the rows apart with as few words as possible.

    Args:
        frame: Rows of ``run_metrics``, or others that identify a run in the same columns.
    """
    columns = [name for name in _WORDS if name in frame.columns]
    varying = [name for name in columns if frame[name].n_unique() > 1]
    common = [_WORDS[name](frame[name][0]) for name in columns if name not in varying]
    rows = frame.select("backbone", *columns).rows(named=True)
    backbones = frame["backbone"].unique()
    if len(backbones) > 1 or not varying:
        varying.insert(0, "backbone")
    labels = tuple(in_words(row, varying) for row in rows)
    if LABEL in frame.columns:
        labels = _labelled(frame[LABEL], labels)
    keys = {
        label: (_backbone_rank(row["backbone"]), label)
        for label, row in zip(labels, rows, strict=True)
    }
    if len(backbones) == 1:
        common.insert(0, str(backbones[0]))
    return Setups(
        labels,
        tuple(sorted(keys, key=lambda label: keys[label])),
        SEPARATOR.join(word for word in common if word),
    )


def with_setups(frame: pl.DataFrame, *, without: Sequence[str] = ()) -> tuple[pl.DataFrame, Setups]:
    """The rows with their setup on one line as ``setup``, and what all of them share.

    Args:
        frame: As for :func:`describe_setups`.
        without: Columns that the chart shows in another way.
    """
    setups = describe_setups(frame.drop(without))
    words = [label.replace("\n", ", ") for label in setups.labels]
    return frame.with_columns(setup=pl.Series(words, dtype=pl.String)), setups


def _labelled(given: pl.Series, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that were asked for; with the facts below where they tell two setups not apart."""
    short = [str(value) if value is not None else "none" for value in given]
    several: dict[str, set[str]] = {}
    for name, label in zip(short, labels, strict=True):
        several.setdefault(name, set()).add(label)
    return tuple(
        name if len(several[name]) == 1 else f"{name}\n{label}"
        for name, label in zip(short, labels, strict=True)
    )


def weights_in_words(weights: str) -> str:
    """``weights: random:0 (untrained)``: a reader must not take chance for a result."""
    return f"weights: {_marked(weights)}"


def is_untrained(weights: str | None) -> bool:
    """Whether weights are random numbers."""
    return weights is not None and weights.startswith("random:")


def _marked(weights: str) -> str:
    return f"{weights} (untrained)" if is_untrained(weights) else weights


def counted(number: int, thing: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _audit_in_words(accepted: bool | None) -> str:
    if accepted is None:
        return ""
    return "audit failed, accepted" if accepted else "audited"


_REGIMES = {
    "frozen": "frozen backbone",
    "lora": "LoRA",
    "full": "all weights trained",
    "few-label": "few labels",
    "supervised": "from scratch",
    "zero-shot": "text prompt",
}


def _regime_in_words(regime: str) -> str:
    return _REGIMES.get(regime, regime)


# In the order of the subtitle.
_WORDS: Mapping[str, Callable[[Any], str]] = {
    "regime": _regime_in_words,
    # A U-Net that is trained from scratch has none.
    "weights": lambda weights: "" if weights == "none" else weights_in_words(weights),
    "longest_edge": lambda edge: "" if edge is None else f"longest edge {edge} px",
    "protocol": lambda protocol: f"protocol {protocol}",
    "sampling": lambda sampling: f"{sampling} sampling",
    "precision": lambda precision: precision or "",
    "audit_accepted": _audit_in_words,
    "data": lambda data: "" if data is None else f"data {data}",
}
_SHORT: Mapping[str, Callable[[Any], str]] = {
    "backbone": str,
    "weights": _marked,
    "longest_edge": lambda edge: "one physical scale" if edge is None else f"{edge} px",
    # paper[max_epochs=3, patience=5]: a line for the name and one for each change.
    "protocol": lambda protocol: protocol.removesuffix("]").replace("[", "\n").replace(", ", "\n"),
    "precision": lambda precision: precision or "unknown arithmetic",
    "audit_accepted": lambda accepted: _audit_in_words(accepted) or "no audit",
}


def in_words(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """What some of a row's columns say, a line each."""
    words = {**_WORDS, **_SHORT}
    return "\n".join(word for name in columns if (word := words[name](row[name])))


def _backbone_rank(name: str) -> tuple[str, int, str]:
    """Families together, small before large."""
    family = name.partition("-")[0]
    rank = next((i for i, size in enumerate(_SIZES) if size in name.split("-")), len(_SIZES))
    return family, rank, name


def training_order(frame: pl.DataFrame) -> list[str]:
    """What was trained on: single datasets before pairs."""
    return sorted(frame["train_on"].unique(), key=lambda names: (names.count(" + "), names))
