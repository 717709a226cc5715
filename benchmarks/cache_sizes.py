"""What smaller caches cost: bytes, scores, distances and neighbours of every way to store tokens.

python benchmarks/cache_sizes.py WORKSPACE DATASET DATASET --weights NAME --out cache_sizes.csv

Both datasets are in the workspace. Rows that stand in the file already are not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32

from emcache.cache.convert import convert
from emcache.cache.encoding import TokenType
from emcache.cache.extract import run_extraction
from emcache.cache.feature_set import FeatureSet
from emcache.cache.find import FeatureRequest
from emcache.cache.plan import ExtractOptions, plan_extraction
from emcache.data.dataset import Selection, load_dataset
from emcache.gap.frechet import frechet_distance
from emcache.progress import Quiet
from emcache.storage.workspace import Workspace
from emcache.training.plan import TrainingRequest
from emcache.training.protocol import Protocol
from emcache.training.run import train
from emcache_cli.console import Console

BACKBONE, EDGE = "dinov2-small", 266
SEEDS = (0, 1, 2)
HEADS = {
    "linear": Protocol(head="linear", learning_rate=1e-2, max_epochs=60),
    "deconv": Protocol(learning_rate=5e-4, max_epochs=15),
}
_QUERIES, _KEYS = 2_000, 20_000


class Way(NamedTuple):
    """A way to store tokens."""

    dtype: TokenType
    components: int | None = None

    @property
    def name(self) -> str:
        """In words."""
        return self.dtype if self.components is None else f"{self.components} x {self.dtype}"


WAYS = (
    Way("float16"),
    Way("int8"),
    *(Way("float16", count) for count in (128, 64, 32, 16)),
    *(Way("int8", count) for count in (128, 64, 32)),
)
FLOAT8 = "float8"


def feature_sets(workspace: Workspace, names: Sequence[str], weights: str) -> dict[Way, list[str]]:
    """The feature sets of the datasets, stored in every way; principal components share a basis."""
    plain = []
    for name in names:
        options = ExtractOptions(BACKBONE, weights, EDGE)
        job = plan_extraction(workspace, Selection(name, None), options, Quiet())
        plain.append(run_extraction(job, Console()).feature_set.name)
    made = {WAYS[0]: plain}
    for way in WAYS[1:]:
        found = convert(workspace, plain, way.dtype, way.components, Console())
        made[way] = [one.feature_set.name for one in found]
    return made


def all_tokens(feature_set: FeatureSet) -> Float32[np.ndarray, "token channel"]:
    """Of all slices."""
    grids = [feature_set.tokens(place) for place in range(len(feature_set))]
    return np.concatenate([grid.reshape(-1, grid.shape[-1]).astype(np.float32) for grid in grids])


def as_float8(feature_set: FeatureSet) -> Float32[np.ndarray, "token channel"]:
    """What 8-bit floats (e4m3) would give, each channel of a slice scaled to its largest value."""
    grids = []
    for place in range(len(feature_set)):
        tokens = torch.from_numpy(feature_set.tokens(place).astype(np.float32)).flatten(0, 1)
        middle = tokens.mean(dim=0)
        scale = (tokens - middle).abs().amax(dim=0).clamp(min=1e-12) / 448
        small = ((tokens - middle) / scale).to(torch.float8_e4m3fn).float()
        grids.append((small * scale + middle).numpy())
    return np.concatenate(grids)


def neighbours(tokens: Float32[np.ndarray, "token channel"]) -> np.ndarray:
    """The nearest of some tokens, by the angle between them, for each of some others."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(tokens))
    keys, queries = order[_QUERIES:][:_KEYS], order[:_QUERIES]
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    return np.asarray((unit[queries] @ unit[keys].T).argmax(axis=1))


def measure_tokens(
    workspace: Workspace, names: Sequence[str], sets: dict[Way, list[str]]
) -> list[dict[str, object]]:
    """Bytes, distance between the datasets and neighbours of every way."""

    def row(way: str, tokens: list[np.ndarray], sizes: list[int] | None) -> dict[str, object]:
        rng = np.random.default_rng(1)
        few = [each[rng.permutation(len(each))[:_QUERIES]] for each in tokens]
        distance = frechet_distance(*few)
        found = {"way": way, "frechet": float(distance)}
        for name, each, own in zip(names, tokens, nearest, strict=True):
            found[f"same_neighbour_{name}"] = float((neighbours(each) == own).mean())
        for name, size in zip(names, sizes or [], strict=sizes is not None):
            found[f"bytes_{name}"] = size
        return found

    opened = {
        way: [FeatureSet.open(workspace.cache / name) for name in own] for way, own in sets.items()
    }
    plain = [all_tokens(one) for one in opened[WAYS[0]]]
    nearest = [neighbours(each) for each in plain]
    rows = []
    for way, own in opened.items():
        sizes = [_bytes_of(one) for one in own]
        rows.append(row(way.name, [all_tokens(one) for one in own], sizes))
    rows.append(row(FLOAT8, [as_float8(one) for one in opened[WAYS[0]]], None))
    return rows


def _bytes_of(feature_set: FeatureSet) -> int:
    """Of the files that the tokens need: themselves, and what is needed to read them."""
    needed = ("grids", "scale", "offset", "basis")
    files = feature_set.manifest["files"].items()
    return sum(facts["bytes"] for name, facts in files if name.startswith(needed))


def measure_scores(
    workspace: Workspace, name: str, weights: str, way: Way, head: str
) -> list[dict[str, object]]:
    """Test IoU of a head on one dataset's tokens, for each seed."""
    features = FeatureRequest(BACKBONE, weights, EDGE, dtype=way.dtype, components=way.components)
    request = TrainingRequest(
        datasets=[name], features=features, protocol=HEADS[head], seeds=SEEDS, accept_audit=True
    )
    rows = []
    for record in train(workspace, request, Console()):
        counts = pl.read_parquet(record.file("slice_metrics.parquet")).filter(
            pl.col("split") == "test"
        )
        tp, fp, fn = (int(counts[count].sum()) for count in ("tp", "fp", "fn"))
        facts = {"way": way.name, "dataset": name, "head": head, "seed": record.config["seed"]}
        rows.append({**facts, "iou_fg": tp / (tp + fp + fn), "run_id": record.id})
    return rows


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("datasets", nargs=2)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    workspace = Workspace(given.workspace)
    for name in given.datasets:
        load_dataset(workspace, name, Quiet())
    sets = feature_sets(workspace, given.datasets, given.weights)
    tokens = given.out.with_name(f"{given.out.stem}_tokens.csv")
    if not tokens.exists():
        rows = measure_tokens(workspace, given.datasets, sets)
        pl.DataFrame(rows, infer_schema_length=None).write_csv(tokens)
    done = pl.read_csv(given.out).to_dicts() if given.out.exists() else []
    known = {(row["way"], row["dataset"], row["head"]) for row in done}
    for head in HEADS:
        for way in WAYS if head == "linear" else WAYS[:2]:
            for name in given.datasets:
                if (way.name, name, head) not in known:
                    done += measure_scores(workspace, name, given.weights, way, head)
                    pl.DataFrame(done, infer_schema_length=None).write_csv(given.out)


if __name__ == "__main__":
    main()
