"""Which distance tells two microscopes from two pieces of one stack, and its false alarms.

Every stack of the study is cut into blocks of ten slices. A distance that says something must be
larger between blocks of two microscopes than between blocks of one stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.spatial.distance import pdist

from emcache.gap.frechet import Sample, frechet_distance
from emcache.gap.measure import kernel_distance
from emcache.gap.probe import probe
from emcache_warehouse.query import run_query

KINDS = ("stack", "tissue", "microscope")
"""What two blocks share: the stack; the tissue and microscope; neither."""
SIZE = 10
"""Slices in a block."""
_PERMUTATIONS = 19
"""Of the probe's null: its p-value is 0.05 at least."""
_VECTORS = """
SELECT DISTINCT ON (embeddings.dataset, slice_id) embeddings.dataset, slice_id, vector
FROM embeddings JOIN feature_sets USING (record_id)
WHERE level = 'slice' AND longest_edge = 266 AND weights NOT LIKE 'random:%'
    AND feature_sets.dataset IN ('vnc', 'lucchi-all') AND recipe_sha256 = (
        SELECT any_value(recipe_sha256) FROM gaps WHERE regime = 'frozen' AND level = 'slice'
            AND domain_a = 'vnc' AND domain_b = 'vnc:stack2'
    )
ORDER BY ALL
"""


class Block(NamedTuple):
    """Ten neighbouring slices."""

    tissue: str
    stack: str
    sample: Sample


def measure_pairs(warehouse: Path) -> pl.DataFrame:
    """Every distance of every two blocks, from the slices' vectors in the warehouse."""
    blocks = cut(run_query(warehouse, _VECTORS, {}))
    distances = _distances(np.concatenate([block.sample.vectors for block in blocks]))
    rows = []
    for one, other in combinations(blocks, 2):
        values = {name: of(one.sample, other.sample) for name, of in distances.items()}
        found = probe(one.sample, other.sample, permutations=_PERMUTATIONS)
        if found is None:
            raise ValueError(f"blocks of {SIZE} slices are too few for the probe")
        values |= {"probe, AUROC": found.auroc, "probe, p-value": found.p_value}
        rows += [
            {"distance": name, "kind": _kind(one, other), "value": value}
            for name, value in values.items()
        ]
    # Each distance by itself, in the order of the page.
    order = {name: place for place, name in enumerate(values)}
    return pl.DataFrame(sorted(rows, key=lambda row: order[str(row["distance"])]))


def judge(pairs: pl.DataFrame) -> pl.DataFrame:
    """How well each distance tells.

    Returns:
        Medians, and the share of false alarms of a threshold that finds every pair of microscopes.
    """
    rows = []
    for (name,), group in pairs.group_by(["distance"], maintain_order=True):
        values = {
            kind: group.filter(pl.col("kind") == kind)["value"].to_numpy()
            # A small p-value says that two blocks are far apart.
            * (-1 if str(name).endswith("p-value") else 1)
            for kind in KINDS
        }
        apart = values["microscope"]
        row: dict[str, object] = {"distance": name}
        for kind, distances in values.items():
            row[f"n_{kind}"] = len(distances)
            row[f"median_{kind}"] = abs(float(np.median(distances)))
        for kind in KINDS[:2]:
            within = values[kind]
            row[f"false_alarms_{kind}"] = float((within >= apart.min()).mean())
            # The share of pairs in which the microscopes lie further apart (Mann and Whitney's U).
            further = (apart[:, None] > within).mean() + (apart[:, None] == within).mean() / 2
            row[f"auroc_{kind}"] = float(further)
        rows.append(row)
    return pl.DataFrame(rows)


def cut(rows: pl.DataFrame) -> list[Block]:
    """Blocks of neighbours; slices that fill no block are left out.

    Lucchi++ has a run of neighbours and then gaps where it is not there as a whole; a block lies on
    one side of such a change.
    """
    stacks: dict[tuple[str, str], list[tuple[int, np.ndarray]]] = {}
    for dataset, slice_id, vector in rows.iter_rows():
        stack, _, number = slice_id.rpartition("/")
        key = (dataset, stack or "stack2")
        stacks.setdefault(key, []).append((int(re.findall(r"\d+", number)[-1]), np.array(vector)))
    blocks = []
    for (dataset, stack), slices in sorted(stacks.items()):
        slices.sort(key=lambda item: item[0])
        numbers = np.array([number for number, _ in slices])
        for run in np.split(np.arange(len(slices)), np.flatnonzero(np.diff(numbers, n=2) != 0) + 2):
            for start in range(0, len(run) - SIZE + 1, SIZE):
                vectors = np.stack([slices[i][1] for i in run[start : start + SIZE]])
                sample = Sample(vectors.astype(np.float32), np.arange(SIZE))
                blocks.append(Block(dataset.partition("-")[0], f"{dataset} {stack}", sample))
    return blocks


def _kind(one: Block, other: Block) -> str:
    if one.tissue != other.tissue:
        return "microscope"
    # The two stacks of VNC are neighbours, and so are the two halves of Lucchi++.
    return "stack" if one.stack == other.stack else "tissue"


def _distances(everything: np.ndarray) -> Mapping[str, Callable[[Sample, Sample], float]]:
    """The distances, by what the page calls them.

    Args:
        everything: All blocks' vectors, whose mean and spread some distances are scaled by.
    """
    mean, spread = everything.mean(axis=0), everything.std(axis=0)

    def plain(sample: Sample) -> Sample:
        return sample

    def unit(sample: Sample) -> Sample:
        lengths = np.linalg.norm(sample.vectors, axis=1, keepdims=True)
        return Sample(sample.vectors / lengths, sample.owners)

    def scaled(sample: Sample) -> Sample:
        return Sample((sample.vectors - mean) / spread, sample.owners)

    def frechet(change: Callable[[Sample], Sample]) -> Callable[[Sample, Sample], float]:
        return lambda a, b: frechet_distance(change(a).vectors, change(b).vectors)

    def means(change: Callable[[Sample], Sample]) -> Callable[[Sample, Sample], float]:
        return lambda a, b: float(
            ((change(a).vectors.mean(axis=0) - change(b).vectors.mean(axis=0)) ** 2).sum()
        )

    def kernel(change: Callable[[Sample], Sample]) -> Callable[[Sample, Sample], float]:
        return lambda a, b: kernel_distance(change(a), change(b)) or 0.0

    bandwidth = float(np.median(pdist((everything - mean) / spread)))
    return {
        "Frechet": frechet(plain),
        "Frechet, unit length": frechet(unit),
        "Frechet, each channel scaled": frechet(scaled),
        "squared distance of the means": means(plain),
        "squared distance of the means, each channel scaled": means(scaled),
        "kernel, polynomial": kernel(plain),
        "kernel, polynomial, each channel scaled": kernel(scaled),
        "kernel, Gaussian, each channel scaled": _gaussian(scaled, bandwidth),
    }


def _gaussian(
    change: Callable[[Sample], Sample], bandwidth: float
) -> Callable[[Sample, Sample], float]:
    """Squared MMD with a Gaussian kernel, unbiased, neighbouring slices left out."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squared = ((x[:, None] - y[None]) ** 2).sum(axis=2)
        values: np.ndarray = np.exp(-squared / (2 * bandwidth**2))
        return values

    def distance(a: Sample, b: Sample) -> float:
        total = -2 * kernel(change(a).vectors, change(b).vectors).mean()
        for side in (a, b):
            apart = np.abs(side.owners[:, None] - side.owners[None]) > 1
            total += kernel(change(side).vectors, change(side).vectors)[apart].mean()
        return float(total)

    return distance
