"""Studies: grids of trainings in a TOML file.

::

    name = "sizes"

    [datasets.vnc]                              # any number; added where the workspace lacks them
    layout = "vnc"                              # and further options of a dataset's table
    root = "vnc"                                # below the study's folder, or --data

    [[grid]]                                    # one or several
    backbones = ["dinov2-small", "dinov3-small"]
    regimes = ["frozen", "lora", "full"]        # default: frozen
    train_on = ["vnc", ["lucchi++", "vnc"]]     # a list inside is one training on several datasets
    seeds = "0-4"
    sampling = ["natural"]                      # default; or balanced
    weights = "pretrained"                      # default; random:SEED, hf:REPOSITORY, a short name
                                                # of the workspace, a file, or one for each
                                                # backbone: {dinov2-small = "small.pth"}
    longest_edge = 1022                         # default; with tiles, that of a tile
    train_slices = [1, 2, 4, "all"]             # default: all; of each dataset, a cell for each
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
    regimes = ["frozen", "lora"]                # default: frozen; others: through the study's runs
    train_on = [["lucchi++", "vnc"]]            # default: all; runs that were trained on these
    levels = ["slice", "token"]                 # default: slice
    by_class = false                            # default
    normalise = "none"                          # default; percentile, clahe, histogram:DATASET
    align = "none"                              # default; standardise, whiten, coral, quantile
                                                # weights, longest_edge, precision, dtype as above
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from emcache.cache.alignment import Method
from emcache.cache.encoding import TokenType
from emcache.cache.find import FeatureRequest
from emcache.data.dataset import Selection
from emcache.data.tiles import default_edge
from emcache.data.tiling import Tiling
from emcache.errors import StudyError, UsageError
from emcache.models.backbones.registry import find_backbone
from emcache.models.weights import is_named, is_untrained
from emcache.storage.workspace import check_dataset_name, find_long_name, find_oddity
from emcache.studies.datasets import StudyDataset
from emcache.studies.tables import FeaturesTable, GapTable, GridTable, StudyTable
from emcache.training.numbers import parse_seeds
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol, find_protocol
from emcache.training.regimes import find_regime
from emcache.training.sampling import Sampling, check_sampling
from emcache.training.slice_inputs import NO_BACKBONE
from emcache.validation import Misfit, check

_MOST_CELLS = 10_000


@dataclass(frozen=True, slots=True)
class Cell:
    """Trainings that differ in the seed alone."""

    request: TrainingRequest
    backbone: str
    weights: str
    longest_edge: int
    evaluate_on: tuple[str, ...]
    """Where each run is scored beside the test slices of what it was trained on."""

    @property
    def words(self) -> str:
        """What tells the cell apart, for messages."""
        request = self.request
        trained_on = " + ".join(request.datasets)
        slices = request.protocol.train_slices
        few = "" if slices is None else f", {slices} slice{'s' * (slices > 1)}"
        return f"{request.regime} {self.backbone} on {trained_on}, {request.sampling}{few}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyGap:
    """Distances between every two of some selections, in one kind of features."""

    between: tuple[str, ...]
    """``NAME`` or ``NAME:SPLIT``, two or more."""
    backbone: str
    weights: str
    longest_edge: int
    precision: str
    dtype: TokenType
    regime: str
    """Whether the backbone is frozen, or one that runs of the study trained, as ``lora``."""
    train_on: tuple[tuple[str, ...], ...] | None
    """What those runs were trained on; None for all."""
    levels: tuple[str, ...]
    """Of :data:`emcache.gap.features.LEVELS`."""
    by_class: bool
    normalise: str
    """What is done to greys first, in frozen features; runs have a rule of their own."""
    align: Method
    """How tokens are aligned first."""

    @property
    def words(self) -> str:
        """What tells it apart, for messages."""
        words = [word for word in (self.normalise, self.align) if word != "none"]
        aligned = f", aligned by {' and '.join(words)}" if words else ""
        return f"gaps between {', '.join(self.between)}, {self.regime} {self.backbone}{aligned}"


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
        names = (n for cell in self.cells for n in (*cell.request.datasets, *cell.evaluate_on))
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
    reader = _Reader(path, short_names, weights)
    table = reader.table()
    try:
        for name in table.datasets:
            check_dataset_name(name)
        cells = [cell for grid in table.grid for cell in reader.cells(grid)]
        gaps = [gap for each in table.gap for gap in reader.gaps(each)]
    except UsageError as error:
        raise StudyError(f"{path}: {error}", subject=path) from error
    _check_distinct(path, cells)
    for gap in gaps:
        _check_runs(path, gap, cells)
    own = tuple(
        StudyDataset(name, each.layout, each.root, each.model_extra or {})
        for name, each in table.datasets.items()
    )
    return Study(table.name or path.stem, tuple(cells), own, tuple(gaps), path.parent)


def is_through(gap: StudyGap, cell: Cell) -> bool:
    """Whether distances are measured through the backbones of a cell's runs."""
    alike = (cell.backbone, cell.weights, cell.longest_edge, cell.request.regime) == (
        gap.backbone,
        gap.weights,
        gap.longest_edge,
        gap.regime,
    )
    return alike and (gap.train_on is None or tuple(cell.request.datasets) in gap.train_on)


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    short_names: Collection[str]
    weights: str | None

    def table(self) -> StudyTable:
        """The file's tables, once every key and value is one that can be."""
        found = check(StudyTable, _read_toml(self.path))
        if not isinstance(found, Misfit):
            return found
        path, key = self.path, found.key
        if found.kind == "unknown":
            message = f"{path} has an unknown key {key}; {found.known_keys}"
        elif found.kind == "missing":
            outer, _, last = key.rpartition(".")
            table = f"[[{outer}]]" if outer in ("grid", "gap") else f"[{outer}]"
            where = f"{table} of {path}" if outer else str(path)
            message = f"{where} has no {last}; expected {found.expected}"
        else:
            message = f"{key} of {path} cannot be {found.value!r:.200}; expected {found.expected}"
        raise StudyError(f"{message}.", subject=found.path[-1] if found.path else path)

    def cells(self, grid: GridTable) -> list[Cell]:
        path = self.path
        axes = (self._kinds(grid), grid.train_on, grid.sampling, grid.train_slices)
        if (n_cells := prod(len(axis) for axis in axes)) > _MOST_CELLS:
            raise StudyError(
                f"a [[grid]] of {path} has {n_cells} cells; expected at most {_MOST_CELLS}: make "
                f"it several studies.",
                subject=path,
            )
        for name in dict.fromkeys(grid.backbones):
            find_backbone(name)
        for name in grid.evaluate_on:
            Selection.parse(name)
        seeds = tuple(parse_seeds(str(grid.seeds)))
        cells = []
        protocols = {regime: self._protocol(grid, regime) for regime in grid.regimes}
        for (backbone, regime), datasets, sampling, slices in product(*axes):
            protocol = protocols[regime].with_changes(
                {"train_slices": None if slices == "all" else slices}
            )
            names = (datasets,) if isinstance(datasets, str) else tuple(datasets)
            check_sampling(Sampling(sampling), len(names), protocol.batch)
            weights = self._weights(grid, backbone)
            # One physical scale stands in place of the longest edge.
            tiling = Tiling.of(protocol.tile, protocol.overlap)
            chosen = "longest_edge" in grid.model_fields_set
            edge = grid.longest_edge if chosen else default_edge(tiling)
            request = TrainingRequest(
                datasets=names,
                regime=regime,
                features=FeatureRequest(
                    backbone,
                    weights,
                    edge if grid.pixel_size_nm is None else None,
                    grid.dtype,
                    pixel_size_nm=grid.pixel_size_nm,
                    tiling=tiling,
                ),
                protocol=protocol,
                seeds=seeds,
                sampling=Sampling(sampling),
                precision=grid.precision,
                accumulate=grid.accumulate,
                checkpoint=grid.checkpoint,
                accept_audit=grid.accept_audit,
            )
            cells.append(Cell(request, backbone, weights, edge, tuple(grid.evaluate_on)))
        return cells

    def gaps(self, table: GapTable) -> list[StudyGap]:
        """The distances that a table asks for: one for each backbone and regime."""
        for name in table.between:
            Selection.parse(name)
        if without := [name for name in table.regimes if not find_regime(name).has_backbone]:
            raise StudyError(
                f"a [[gap]] of {self.path} asks for {without[0]}, which has no tokens to measure; "
                f"expected another regime.",
                subject=without[0],
            )
        trainings = None
        if table.train_on is not None:
            trainings = tuple((t,) if isinstance(t, str) else tuple(t) for t in table.train_on)
        return [
            StudyGap(
                between=tuple(table.between),
                backbone=find_backbone(backbone).name,
                weights=self._weights(table, backbone),
                longest_edge=table.longest_edge,
                precision=table.precision,
                dtype=table.dtype,
                regime=regime,
                train_on=trainings,
                levels=tuple(table.levels),
                by_class=table.by_class,
                normalise=table.normalise,
                align=table.align,
            )
            for backbone, regime in self._kinds(table)
        ]

    def _kinds(self, table: FeaturesTable) -> list[tuple[str, str]]:
        """Backbones with the regimes of a table; a regime that has none stands once."""
        own = [name for name in table.regimes if find_regime(name).has_backbone]
        if own and not table.backbones:
            raise StudyError(
                f"a table of {self.path} has no backbones; expected a list of names, which "
                f"{own[0]} needs.",
                subject=own[0],
            )
        others = [name for name in table.regimes if name not in own]
        return [*product(table.backbones, own), *((NO_BACKBONE, name) for name in others)]

    def _protocol(self, grid: GridTable, regime: str) -> Protocol:
        known = grid.protocol
        if "pixel_size_nm" in known:
            raise StudyError(
                f"grid.protocol of {self.path} has pixel_size_nm; expected it in the [[grid]] "
                f"itself, since it sets the size of tokens.",
                subject="pixel_size_nm",
            )
        protocol = find_protocol(known.get("name", find_regime(regime).protocol))
        changes = {name: value for name, value in known.items() if name != "name"}
        return protocol.with_changes({**changes, "pixel_size_nm": grid.pixel_size_nm})

    def _weights(self, table: FeaturesTable, backbone: str) -> str:
        """The weights of one backbone; a file is named from the study's folder."""
        if backbone == NO_BACKBONE:
            return NO_BACKBONE
        own = table.weights
        untrained = isinstance(own, str) and is_untrained(own)
        if self.weights is not None and not untrained:
            named = is_named(self.weights) or self.weights in self.short_names
            return self.weights if named else os.path.realpath(self.weights)
        text = own if isinstance(own, str) else own.get(backbone)
        if text is None:
            raise StudyError(
                f"weights of {self.path} say nothing of {backbone}; expected a line for each "
                f"backbone.",
                subject=backbone,
            )
        if is_named(text) or text in self.short_names:
            return text
        return os.path.realpath(self.path.parent / text)


def _read_toml(path: Path) -> dict[str, Any]:
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
    return content


def _check_runs(path: Path, gap: StudyGap, cells: Collection[Cell]) -> None:
    through_runs = find_regime(gap.regime).runs_backbone
    if through_runs and gap.normalise != "none":
        raise StudyError(
            f"a [[gap]] of {path} has normalise and regime {gap.regime}; expected one of them, "
            f"since runs have a rule of their own.",
            subject=gap.normalise,
        )
    if through_runs and not any(is_through(gap, cell) for cell in cells):
        raise StudyError(
            f"a [[gap]] of {path} asks for {gap.regime} runs of {gap.backbone}, and no [[grid]] "
            f"trains such runs at {gap.longest_edge} px; expected one with the same train_on, "
            f"weights and longest_edge.",
            subject=gap.backbone,
        )


def _check_distinct(path: Path, cells: Sequence[Cell]) -> None:
    seen: set[TrainingRequest] = set()
    for cell in cells:
        # What changes no score does not make two trainings of one.
        alike = replace(cell.request, accumulate=1, checkpoint=False, accept_audit=False)
        for seed in cell.request.seeds:
            key = replace(alike, seeds=(seed,))
            if key in seen:
                raise StudyError(
                    f"{path} asks twice for {cell.words}, seed {seed}; expected each once.",
                    subject=key,
                )
            seen.add(key)
