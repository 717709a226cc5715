"""The ``[[gap]]`` tables of a study: distances to measure once everything is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcache.cache.recipe import TokenType
from emcache.data.dataset import Selection
from emcache.errors import StudyError
from emcache.gap.features import LEVELS
from emcache.models.backbones.registry import find_backbone
from emcache.studies.keys import (
    FEATURES,
    Allowed,
    Regime,
    are_texts,
    check_keys,
    check_values,
    each_of,
    weights_of,
)


@dataclass(frozen=True, slots=True)
class StudyGap:
    """Distances between every two of some selections, in one kind of features."""

    between: tuple[str, ...]
    """``NAME`` or ``NAME:SPLIT``, two or more."""
    backbone: str
    weights: str
    longest_edge: int
    precision: str
    dtype: TokenType
    regime: Regime
    """Whether the backbone is frozen, or adapted by LoRA runs of the study."""
    train_on: tuple[tuple[str, ...], ...] | None
    """What those runs were trained on; None for all."""
    levels: tuple[str, ...]
    """Of :data:`emcache.gap.features.LEVELS`."""
    by_class: bool

    @property
    def words(self) -> str:
        """What tells it apart, for messages."""
        return f"gaps between {', '.join(self.between)}, {self.regime} {self.backbone}"


def read_study_gaps(
    path: Path, table: Mapping[str, Any], short_names: Collection[str]
) -> list[StudyGap]:
    """The distances that a ``[[gap]]`` table asks for: one for each backbone and regime.

    Args:
        path: The study's file.
        table: The table.
        short_names: Of weights, which are not files beside the study.

    Raises:
        StudyError: A key or value cannot be.
        UsageError: An unknown backbone, or a selection that cannot be.
    """
    check_keys(path, "gap.", table, _KEYS)
    for name in ("between", "backbones"):
        if name not in table:
            raise StudyError(
                f"a [[gap]] of {path} has no {name}; expected {_KEYS[name][0]}.", subject=name
            )
    check_values(path, table, _KEYS)
    for name in table["between"]:
        Selection.parse(name)
    trainings = table.get("train_on")
    return [
        StudyGap(
            tuple(table["between"]),
            find_backbone(backbone).name,
            weights_of(path, backbone, table.get("weights", "pretrained"), short_names),
            table.get("longest_edge", 1022),
            table.get("precision", "auto"),
            table.get("dtype", "float16"),
            regime,
            None
            if trainings is None
            else tuple((item,) if isinstance(item, str) else tuple(item) for item in trainings),
            tuple(table.get("levels", ["slice"])),
            table.get("by_class", False),
        )
        for backbone in table["backbones"]
        for regime in table.get("regimes", ["frozen"])
    ]


def _are_different(value: object) -> bool:
    return isinstance(value, list) and are_texts(value) and 2 <= len(value) == len(set(value))


_KEYS: Allowed = {
    **FEATURES,
    "between": ("a list of two or more different datasets, or NAME:SPLIT", _are_different),
    "levels": (f"a list of {', '.join(LEVELS)}", each_of(*LEVELS)),
    "by_class": ("true or false", lambda value: isinstance(value, bool)),
}
