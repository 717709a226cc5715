"""Studies: grids of trainings in a TOML file.

::

    name = "sizes"

    [datasets.vnc]                              # any number; added where the workspace lacks them
    layout = "vnc"                              # and further options of a dataset's table
    root = "vnc"                                # below the study's folder, or --data

    [[grid]]                                    # one or several
    backbones = ["dinov2-small", "dinov3-small"]
    regimes = ["frozen", "lora"]                # default: frozen
    train_on = ["vnc", ["lucchi++", "vnc"]]     # a list inside is one training on several datasets
    seeds = "0-4"
    sampling = ["natural"]                      # default; or balanced
    weights = "pretrained"                      # default; random:SEED, hf:REPOSITORY, a short name
                                                # of the workspace, a file, or one for each
                                                # backbone: {dinov2-small = "small.pth"}
    longest_edge = 1022                         # default
    pixel_size_nm = 8.0                         # default: none; one physical scale instead
    precision = "auto"                          # default
    dtype = "float16"                           # default; type of cached tokens
    accumulate = 1                              # default; these two as options of train-lora
    checkpoint = false                          # default
    accept_audit = false                        # default
    evaluate_on = ["lucchi++:test"]             # default: nowhere; where each run is scored too

    [grid.protocol]                             # default: the protocol named paper
    name = "paper"
    max_epochs = 100                            # any field of it

    [[gap]]                                     # any number; distances, measured at the end
    between = ["vnc", "vnc:stack2", "lucchi++"] # every pair of these
    backbones = ["dinov2-small"]
    regimes = ["frozen", "lora"]                # default: frozen; lora: through the study's runs
    train_on = [["lucchi++", "vnc"]]            # default: all; LoRA runs that were trained on these
    levels = ["slice", "token"]                 # default: slice
    by_class = false                            # default
                                                # weights, longest_edge, precision, dtype as above
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from emcache.cache.recipe import TokenType
from emcache.data.dataset import Selection
from emcache.errors import StudyError, UsageError
from emcache.models.backbones.registry import find_backbone
from emcache.models.weights import is_named, is_untrained
from emcache.storage.toml_values import find_long_name, find_oddity
from emcache.studies.datasets import StudyDataset, read_study_datasets
from emcache.studies.gaps import StudyGap, read_study_gaps
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
from emcache.training.protocol import Protocol, find_protocol, parse_seeds
from emcache.training.sampling import Sampling, check_sampling

_AXES = ("backbones", "regimes", "train_on", "sampling")
_MOST_CELLS = 10_000


@dataclass(frozen=True, slots=True)
class Cell:
    """Trainings that differ in the seed alone."""

    backbone: str
    weights: str
    longest_edge: int
    regime: Regime
    train_on: tuple[str, ...]
    sampling: Sampling
    seeds: tuple[int, ...]
    protocol: Protocol
    precision: str
    dtype: TokenType
    accumulate: int
    """The backbone takes a step's slices in so many parts, with LoRA."""
    checkpoint: bool
    """Whether activations are computed twice to need less memory, with LoRA."""
    accept_audit: bool
    """Whether to train on data that failed its audit."""
    evaluate_on: tuple[str, ...]
    """Where each run is scored beside the test slices of what it was trained on."""

    @property
    def words(self) -> str:
        """What tells the cell apart, for messages."""
        return f"{self.regime} {self.backbone} on {' + '.join(self.train_on)}, {self.sampling}"


@dataclass(frozen=True, slots=True)
class Study:
    """A grid of trainings."""

    name: str
    cells: tuple[Cell, ...]
    own_datasets: tuple[StudyDataset, ...] = ()
    """Those that it describes itself."""
    gaps: tuple[StudyGap, ...] = ()
    """Distances to measure once everything is trained."""
    folder: Path = Path()
    """Where its file lies."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Every dataset that some cell trains or scores on; these need masks."""
        names = (n for cell in self.cells for n in (*cell.train_on, *cell.evaluate_on))
        return tuple(dict.fromkeys(Selection.parse(name).dataset for name in names))


def read_study(path: Path, short_names: Collection[str] = (), weights: str | None = None) -> Study:
    """Read a study and expand its grids.

    Cells with the same features stand together, so that tokens are extracted once and read while
    they are warm.

    Args:
        path: The TOML file.
        short_names: Of weights, which are not files beside the study.
        weights: In place of what its grids say, but for untrained ones; a file is named from the
            working directory.

    Raises:
        StudyError: The file cannot be read, or a key or value cannot be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"there is no study {path}; check its name.", subject=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read ({error}); fix that file.", subject=path) from None
    if long_name := find_long_name(text):
        raise StudyError(f"{path} holds {long_name}; fix that line.", subject=path)
    try:
        content = tomllib.loads(text)
    except (RecursionError, ValueError) as error:
        # Tables without end, and numbers of thousands of digits, are errors of Python's own.
        raise StudyError(f"{path} is not TOML ({error}); fix that line.", subject=path) from None
    if oddity := find_oddity(content):
        raise StudyError(f"{path} holds {oddity}; fix that line.", subject=path)
    check_keys(path, "", content, ("name", "datasets", "grid", "gap"))
    grids = content.get("grid")
    if not isinstance(grids, list) or not grids or not all(isinstance(g, dict) for g in grids):
        raise StudyError(
            f"{path} has no [[grid]]; expected one with backbones, train_on and seeds.",
            subject=path,
        )
    gaps = content.get("gap", [])
    if not isinstance(gaps, list) or not all(isinstance(table, dict) for table in gaps):
        raise StudyError(
            f"gap of {path} cannot be {gaps!r:.200}; expected tables, as [[gap]].", subject=path
        )
    try:
        if weights is not None:
            named = is_named(weights) or weights in short_names
            given = weights if named else os.path.realpath(weights)
            grids = [_with_weights(table, given) for table in grids]
            gaps = [_with_weights(table, given) for table in gaps]
        cells = [cell for grid in grids for cell in _expand(path, grid, short_names)]
        distances = [gap for table in gaps for gap in read_study_gaps(path, table, short_names)]
        own = read_study_datasets(path, content.get("datasets", {}))
    except UsageError as error:
        raise StudyError(f"{path}: {error}", subject=path) from error
    _check_distinct(path, cells)
    for gap in distances:
        _check_runs(path, gap, cells)
    return Study(
        str(content.get("name", path.stem)), tuple(cells), own, tuple(distances), path.parent
    )


def is_through(gap: StudyGap, cell: Cell) -> bool:
    """Whether distances are measured through the adapters of a cell's runs."""
    alike = (cell.backbone, cell.weights, cell.longest_edge, cell.regime) == (
        gap.backbone,
        gap.weights,
        gap.longest_edge,
        "lora",
    )
    return alike and (gap.train_on is None or cell.train_on in gap.train_on)


def _check_runs(path: Path, gap: StudyGap, cells: Collection[Cell]) -> None:
    if gap.regime == "lora" and not any(is_through(gap, cell) for cell in cells):
        raise StudyError(
            f"a [[gap]] of {path} asks for LoRA runs of {gap.backbone}, and no [[grid]] trains "
            f"such runs at {gap.longest_edge} px; expected one with the same train_on, weights and "
            f"longest_edge.",
            subject=gap.backbone,
        )


def _with_weights(table: Mapping[str, Any], weights: str) -> Mapping[str, Any]:
    """A table with other weights, unless it asks for untrained ones."""
    ours = table.get("weights")
    untrained = isinstance(ours, str) and is_untrained(ours)
    return table if untrained else {**table, "weights": weights}


def _expand(path: Path, grid: Mapping[str, Any], short_names: Collection[str]) -> list[Cell]:
    check_keys(path, "grid.", grid, _KEYS)
    for name in ("backbones", "train_on", "seeds"):
        if name not in grid:
            raise StudyError(
                f"a [[grid]] of {path} has no {name}; expected {_KEYS[name][0]}.", subject=name
            )
    check_values(path, grid, _KEYS)
    n_cells = prod(len(grid.get(name, [""])) for name in _AXES)
    if n_cells > _MOST_CELLS:
        raise StudyError(
            f"a [[grid]] of {path} has {n_cells} cells; expected at most {_MOST_CELLS}: make it "
            f"several studies.",
            subject=path,
        )
    for name in dict.fromkeys(grid["backbones"]):
        find_backbone(name)
    for name in grid.get("evaluate_on", []):
        Selection.parse(name)
    protocol = _protocol(path, grid.get("protocol", {}))
    if "pixel_size_nm" in grid:
        protocol = protocol.with_changes({"pixel_size_nm": float(grid["pixel_size_nm"])})
    cells = []
    for backbone, regime, datasets, sampling in product(
        grid["backbones"],
        grid.get("regimes", ["frozen"]),
        grid["train_on"],
        grid.get("sampling", ["natural"]),
    ):
        names = (datasets,) if isinstance(datasets, str) else tuple(datasets)
        check_sampling(Sampling(sampling), len(names), protocol.batch)
        cells.append(
            Cell(
                backbone,
                weights_of(path, backbone, grid.get("weights", "pretrained"), short_names),
                grid.get("longest_edge", 1022),
                regime,
                names,
                Sampling(sampling),
                tuple(parse_seeds(str(grid["seeds"]))),
                protocol,
                grid.get("precision", "auto"),
                grid.get("dtype", "float16"),
                grid.get("accumulate", 1),
                grid.get("checkpoint", False),
                grid.get("accept_audit", False),
                tuple(grid.get("evaluate_on", [])),
            )
        )
    return cells


def _protocol(path: Path, table: Mapping[str, Any]) -> Protocol:
    known = tuple(field.name for field in fields(Protocol) if field.name != "pixel_size_nm")
    check_keys(path, "grid.protocol.", table, known)
    changes = {name: value for name, value in table.items() if name != "name"}
    protocol = find_protocol(str(table.get("name", "paper")))
    for name, value in changes.items():
        # None stands for no limit, and a limit is a float.
        usual = 1.0 if name == "gradient_clip" else getattr(protocol, name)
        # TOML writes 1 where 1.0 is meant; the same value must have the same fingerprint.
        if isinstance(usual, float) and isinstance(value, int) and not isinstance(value, bool):
            changes[name] = float(value)
        elif type(value) is not type(usual):
            raise StudyError(
                f"grid.protocol.{name} of {path} cannot be {value!r:.200}; expected a value like "
                f"{usual!r}.",
                subject=name,
            )
    return protocol.with_changes(changes)


def _check_distinct(path: Path, cells: list[Cell]) -> None:
    seen: set[tuple[Any, ...]] = set()
    for cell in cells:
        for seed in cell.seeds:
            key = (
                cell.backbone,
                cell.weights,
                cell.longest_edge,
                cell.regime,
                cell.train_on,
                cell.sampling,
                cell.protocol,
                cell.precision,
                cell.dtype,
                seed,
            )
            if key in seen:
                raise StudyError(
                    f"{path} asks twice for {cell.words}, seed {seed}; expected each once.",
                    subject=key,
                )
            seen.add(key)


_KEYS: Allowed = {
    **FEATURES,
    "sampling": ("a list of natural and balanced", each_of(*Sampling)),
    "seeds": ('seeds as "0-4"', lambda v: isinstance(v, str | int) and not isinstance(v, bool)),
    "pixel_size_nm": ("nanometres", lambda v: isinstance(v, int | float) and 0 < v < 1e9),
    "accumulate": ("a number of parts", lambda v: type(v) is int and v > 0),
    "checkpoint": ("true or false", lambda v: isinstance(v, bool)),
    "accept_audit": ("true or false", lambda v: isinstance(v, bool)),
    "evaluate_on": ("a list of datasets, or NAME:SPLIT", are_texts),
    "protocol": ("a table of a protocol's fields", lambda v: isinstance(v, dict)),
}
