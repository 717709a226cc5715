"""A workspace full of made-up records, written as the commands write them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import emcache.gap.probe
from emcache.cache.extract import embedding_table
from emcache.gap.frechet import Sample
from emcache.gap.measure import measure
from emcache.storage.records import Record, new_record, read_record
from emcache_warehouse.sync import SyncReport, sync

SLICE_PIXELS = 64 * 64
GREY_DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCB"
    "d81ytgAAAABJRU5ErkJggg=="
)


@dataclass
class MadeUp:
    """Paths as the command line passes them, and makers of records."""

    root: Path
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def database(self) -> Path:
        return self.root / "warehouse.duckdb"

    def sync(self) -> SyncReport:
        return sync(self.runs, self.database)

    def dataset(self, name: str = "vnc", n_slices: int = 5, **config: Any) -> Record:
        with new_record(self.runs, "dataset") as draft:
            draft.config = {
                "dataset": name,
                "layout": "folder",
                "root": "data",
                "pairing": "the same stem",
                "n_slices": n_slices,
                "n_labelled": n_slices - 1,
                "grey_pixels": 7,
                "voxel_size_nm": [50.0, 4.6, 4.6],
                **config,
            }
            draft.write_table("slices.parquet", slice_table(name, n_slices))
        return self._finished(draft.id)

    def extract(self, feature_set: str = "vnc-small", **config: Any) -> Record:
        with new_record(self.runs, "extract") as draft:
            draft.config = {
                "feature_set": feature_set,
                "fingerprint": sha(feature_set),
                "recipe_sha256": sha("recipe"),
                "dataset": "vnc",
                "split": None,
                "backbone": "dinov2-small",
                "weights": "random:0",
                "weights_sha256": sha("weights"),
                "longest_edge": 266,
                "patch": 14,
                "dim": 384,
                "layer": "last",
                "dtype": "float16",
                "precision": "float32",
                "device": "cpu",
                "n_slices": 20,
                "n_computed": 20,
                "n_copied": 0,
                "token_bytes": 5_544_960,
                "total_bytes": 6_000_000,
                "n_files": 9,
                "compute_seconds": 12.5,
                **config,
            }
            table = embedding_table("vnc", ["00", "01"], "slice", np.eye(2, 384, dtype=np.float32))
            draft.write_table("embeddings.parquet", table)
        return self._finished(draft.id)

    def evaluate(
        self,
        run: Record,
        on: str,
        *,
        iou: float = 0.4,
        counts: pl.DataFrame | None = None,
        **config: Any,
    ) -> Record:
        """A later evaluation on another dataset; counts are made up where none are given."""
        if counts is None:
            counts = self.counts([on], 3, iou=iou)
        with new_record(self.runs, "evaluate") as draft:
            draft.config = {
                "run_id": run.id,
                "regime": run.config["regime"],
                "train_on": run.config["train_on"],
                "eval_on": [on],
                "data_keys": [sha(on)],
                "whole": [],
                "device": "cpu",
                **config,
            }
            draft.write_table("slice_metrics.parquet", counts)
        return self._finished(draft.id)

    def measure(self, run: Record, on: str = "vnc", **config: Any) -> Record:
        """Boundaries and objects of what a run predicted: of two slices, and of both together."""
        numbers = {"n_true": 4, "n_predicted": 5, "matched_50": 3, "iou_sum_50": 2.4}
        numbers |= {"matched_75": 1, "iou_sum_75": 0.8, "adapted_rand_error": 0.3}
        numbers |= {"voi_split": 0.2, "voi_merge": 0.4, "dice": 0.6, "eval_on": on, "split": "test"}
        rows = [
            {
                "dimensions": n,
                "slice_id": name,
                "n_slices": n - 1,
                "boundary_f": f,
                "hausdorff_95": d,
            }
            for n, name, f, d in ((2, "00", 0.5, 9.0), (2, "01", 0.7, None), (3, "00", None, None))
        ]
        with new_record(self.runs, "metrics") as draft:
            draft.config = {"run_id": run.id, "tolerance": 2.0, "smallest_object": 1, **config}
            draft.write_table("shape_metrics.parquet", pl.DataFrame([r | numbers for r in rows]))
        return self._finished(draft.id)

    def mark(self, run_ids: Sequence[str], *, hidden: bool, why: str | None = None) -> Record:
        """Runs set aside, or taken back."""
        with new_record(self.runs, "run-mark") as draft:
            draft.config = {"run_ids": list(run_ids), "hidden": hidden, "why": why}
        return self._finished(draft.id)

    def train(
        self,
        sources: Sequence[str] = ("vnc",),
        seed: int = 0,
        *,
        n_slices: int = 3,
        counts: pl.DataFrame | None = None,
        epochs: pl.DataFrame | None = None,
        spoil: Callable[[pl.DataFrame], pl.DataFrame] = lambda epochs: epochs,
        **config: Any,
    ) -> Record:
        """A training run; counts and losses are made up where none are given.

        ``spoil`` changes the table of epochs before it is written.
        """
        if counts is None:
            counts = self.counts(sources, n_slices)
        if epochs is None:
            epochs = self.epochs(12)
        with new_record(self.runs, "train-head") as draft:
            draft.config = {
                "regime": "frozen",
                "backbone": "dinov2-small",
                "weights": "random:0",
                "weights_sha256": sha("weights"),
                "longest_edge": 266,
                "protocol": "paper[max_epochs=3]",
                "protocol_fields": {"max_epochs": 3, "learning_rate": 5e-5},
                "train_on": " + ".join(sources),
                "sampling": "natural",
                "seed": seed,
                "head": "deconv",
                "head_parameters": 3_828_866,
                "audit_accepted": None,
                "precision": "float32",
                "device": "cpu",
                "resident": "ram",
                "feature_sets": [f"{name}-small" for name in sources],
                "feature_fingerprints": [sha(name) for name in sources],
                "label_sets": [f"{name}-labels" for name in sources],
                "epochs_run": epochs.height,
                "best_epoch": best_epoch(epochs),
                "best_val_loss": epochs["val_loss"].min(),
                "stopped_by": "max_epochs",
                "n_train": 15,
                "n_val": 2,
                "train_seconds": 30.25,
                "annotated_slices": 17,
                "labelled_pixels": 17 * 1024 * 1024,
                **config,
            }
            draft.write_table("epochs.parquet", spoil(epochs))
            draft.write_table("slice_metrics.parquet", counts)
        return self._finished(draft.id)

    def gap(
        self,
        domains: Sequence[str] = ("lucchi++", "vnc"),
        regime: str = "frozen",
        run_id: str | None = None,
        *,
        shift: float = 1.0,
        sizes: Sequence[int] = (),
        thumbnail: str = GREY_DOT,
        **facts: Any,
    ) -> Record:
        """Distances between made-up vectors, measured as the command measures them."""
        sides = [
            Sample.of_slices(self.random.normal(size=(size, 6)) + shift * place)
            for place, size in enumerate(sizes or [16] * len(domains))
        ]
        key = {
            "backbone": "dinov2-small",
            "weights": "random:0",
            "longest_edge": 266,
            "pixel_size_nm": None,
            "regime": regime,
            "run_id": run_id,
            "recipe_sha256": sha(f"{regime} {run_id}"),
            "level": "slice",
            "class": None,
            **facts,
        }
        with pytest.MonkeyPatch.context() as patch:
            # What a probe comes to matters in tests of the gap; here there only has to be one.
            patch.setattr(emcache.gap.probe, "_PERMUTATIONS", 3)
            rows = [
                {
                    "domain_a": domains[a],
                    "domain_b": domains[b],
                    **key,
                    **measure(sides[a], sides[b], (domains[a], domains[b])).as_dict(),
                }
                for a, b in combinations(range(len(domains)), 2)
            ]
        with new_record(self.runs, "gap") as draft:
            draft.config = {**key, "selections": list(domains)}
            draft.write_table("gaps.parquet", pl.DataFrame(rows, infer_schema_length=None))
            points = [
                {
                    "domain": name,
                    "slice_id": f"{place:02d}",
                    "pc1": float(vector[0]),
                    "pc2": float(vector[1]),
                    "explained1": 0.7,
                    "explained2": 0.1,
                    "thumbnail": thumbnail,
                }
                for name, side in zip(domains, sides, strict=True)
                for place, vector in enumerate(side.vectors)
            ]
            draft.write_table("gap_points.parquet", pl.DataFrame(points))
            vectors = self.random.normal(size=(3, 384)).astype(np.float32)
            ids = ["00", "01", "02"]
            table = embedding_table("vnc", ids, "token", vectors, name_of_class="foreground")
            draft.write_table("embeddings.parquet", table)
        return self._finished(draft.id)

    def bench(self) -> Record:
        """One ratio with a target, and a stage at two sizes."""
        row = {
            "name": "help",
            "question": "emcache --help / import typer",
            "ratio": 3.0,
            "low": 2.5,
            "high": 3.5,
            "unit": "ratio",
            "target": "<= 4",
            "verdict": "pass",
            "device": "cpu",
            "note": "",
            "times": [{"what": "import typer", "seconds": [0.1, 0.2]}],
        }
        growth = {"stage": "audit", "n_slices": [10, 100], "seconds": [0.1, 0.9]}
        with new_record(self.runs, "bench") as draft:
            draft.config = {"machine": "a machine, 2 cores", "quick": True}
            draft.write_table("benchmarks.parquet", pl.DataFrame([row]))
            draft.write_table("benchmark_growth.parquet", pl.DataFrame(growth))
        return self._finished(draft.id)

    def counts(
        self,
        sources: Sequence[str],
        n_slices: int = 3,
        *,
        split: str = "test",
        iou: float = 0.6,
        from_training: int | None = None,
    ) -> pl.DataFrame:
        """Pixel counts of ``n_slices`` per source, at about the given IoU."""
        rows = []
        for source in sources:
            for index in range(n_slices):
                union = int(self.random.integers(500, 1500))
                tp = int(union * np.clip(iou + self.random.normal(0, 0.05), 0, 1))
                fp = int(self.random.integers(0, union - tp + 1))
                rows.append(
                    {
                        "eval_on": source,
                        "split": split,
                        "slice_id": f"{index:02d}",
                        "class": "foreground",
                        "tp": tp,
                        "fp": fp,
                        "fn": union - tp - fp,
                        "tn": SLICE_PIXELS - union,
                        "slices_from_training": from_training,
                    }
                )
        return pl.DataFrame(rows, schema_overrides={"slices_from_training": pl.Int64})

    def epochs(self, n: int) -> pl.DataFrame:
        """Losses that fall and then rise a little."""
        epoch = np.arange(1, n + 1)
        fall = 0.25 + 0.6 * np.exp(-epoch / (n / 4))
        noise = self.random.normal(0, 0.01, (2, n))
        return pl.DataFrame(
            {
                "epoch": epoch,
                "train_loss": fall + noise[0],
                "val_loss": fall + 0.05 + 0.1 * (epoch / n) ** 2 + noise[1],
                "val_iou_fg": 1 - fall,
                "seconds": np.full(n, 2.5),
            }
        )

    def other(self, kind: str, **config: Any) -> Record:
        """A record of any kind, without files."""
        with new_record(self.runs, kind) as draft:
            draft.config = config
        return self._finished(draft.id)

    def _finished(self, record_id: str) -> Record:
        return read_record(self.runs / record_id, verify_files=False)


def best_epoch(epochs: pl.DataFrame) -> int:
    return int(epochs.sort("val_loss")["epoch"][0])


def slice_table(name: str, n_slices: int) -> pl.DataFrame:
    """Slices of a dataset; the last one has no mask."""
    labelled = [index < n_slices - 1 for index in range(n_slices)]
    return pl.DataFrame(
        {
            "slice_id": [f"{index:02d}" for index in range(n_slices)],
            "position": list(range(n_slices)),
            "split": ["train" if has_mask else None for has_mask in labelled],
            "image": [f"images/{index:02d}.png" for index in range(n_slices)],
            "mask": [
                f"masks/{i:02d}.png" if has_mask else None for i, has_mask in enumerate(labelled)
            ],
            "height": [64] * n_slices,
            "width": [64] * n_slices,
            "pixel_sha256": [sha(f"{name}{index}") for index in range(n_slices)],
            "mask_sha256": [
                sha(f"m{i}") if has_mask else None for i, has_mask in enumerate(labelled)
            ],
            "foreground_fraction": [0.25 if has_mask else None for has_mask in labelled],
            "grey_pixels": [1 if has_mask else None for has_mask in labelled],
        },
        schema_overrides={"split": pl.String, "mask": pl.String},
    )


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(autouse=True)
def no_disk_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small records are written here, and no test cuts the power."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    """A workspace without records."""
    return MadeUp(tmp_path)


@pytest.fixture(scope="session")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    """A workspace with records of every kind, ingested; for reading only."""
    made_up = MadeUp(tmp_path_factory.mktemp("filled"))
    made_up.dataset("vnc")
    made_up.dataset("lucchi++")
    made_up.extract("vnc-small")
    made_up.extract("lucchi++-small", dataset="lucchi++")
    for seed in (0, 1):
        made_up.train(("vnc",), seed, setup_fingerprint="alone")
        made_up.train(("lucchi++", "vnc"), seed, setup_fingerprint="together")
    run = made_up.train(("vnc",), 2, setup_fingerprint="alone")
    made_up.evaluate(run, "lucchi++")
    made_up.measure(run)
    made_up.gap()
    made_up.bench()
    made_up.other("benchmark", seconds=1.0)
    made_up.sync()
    return made_up


@pytest.fixture
def filled(filled_once: MadeUp, tmp_path: Path) -> MadeUp:
    """The same, a copy of one's own."""
    shutil.copytree(filled_once.root, tmp_path, dirs_exist_ok=True)
    return MadeUp(tmp_path)
