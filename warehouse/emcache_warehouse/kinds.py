"""What is ingested of each kind of record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """A Parquet file of a record."""

    statement: str
    """Packaged statement that reads it."""
    columns: tuple[str, ...]
    """Columns that it must have; more do not matter."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record that has tables of its own."""

    required: tuple[str, ...]
    """Keys that ``config`` must have; all others may be absent and are NULL then."""
    rows: str
    """Packaged statement that cuts a row from ``config``."""
    files: Mapping[str, ParquetTable] = field(default_factory=dict)
    """Parquet files by name; a record may lack one."""


_COUNTS = ("eval_on", "split", "slice_id", "class", "tp", "fp", "fn", "tn")

_EMBEDDINGS = ParquetTable(
    "tables/embeddings.sql",
    ("dataset", "slice_id", "level", "class", "token_row", "token_col", "vector"),
)

_TRAINING = Kind(
    required=("regime", "backbone", "weights", "protocol", "train_on", "sampling", "seed"),
    rows="tables/runs.sql",
    files={
        "epochs.parquet": ParquetTable(
            "tables/epochs.sql", ("epoch", "train_loss", "val_loss", "val_iou_fg", "seconds")
        ),
        "slice_metrics.parquet": ParquetTable("tables/slice_metrics.sql", _COUNTS),
        "training_slices.parquet": ParquetTable(
            "tables/training_slices.sql", ("dataset", "slice_id", "part", "pixel_sha256")
        ),
    },
)

KINDS: Mapping[str, Kind] = {
    "dataset": Kind(
        required=("dataset",),
        rows="tables/datasets.sql",
        files={
            "slices.parquet": ParquetTable(
                "tables/slices.sql",
                (
                    "slice_id",
                    "position",
                    "split",
                    "image",
                    "mask",
                    "height",
                    "width",
                    "pixel_sha256",
                    "mask_sha256",
                    "foreground_fraction",
                    "grey_pixels",
                ),
            )
        },
    ),
    "extract": Kind(
        required=("feature_set", "dataset", "backbone", "weights"),
        rows="tables/feature_sets.sql",
        files={"embeddings.parquet": _EMBEDDINGS},
    ),
    "gap": Kind(
        required=("backbone", "weights", "regime", "selections"),
        rows="tables/gap_measurements.sql",
        files={
            "gaps.parquet": ParquetTable(
                "tables/gaps.sql",
                (
                    "domain_a",
                    "domain_b",
                    "backbone",
                    "weights",
                    "longest_edge",
                    "pixel_size_nm",
                    "regime",
                    "run_id",
                    "recipe_sha256",
                    "level",
                    "class",
                    "n_a",
                    "n_b",
                    "dim",
                    "effective_rank",
                    "frechet",
                    "frechet_se",
                    "frechet_low",
                    "frechet_high",
                    "n_yardstick",
                    "frechet_within_a",
                    "frechet_within_b",
                    "frechet_at_n",
                    "frechet_infinity",
                    "kernel",
                    "kernel_name",
                    "probe_accuracy",
                    "probe_auroc",
                    "probe_p_value",
                ),
            ),
            "gap_points.parquet": ParquetTable(
                "tables/gap_points.sql",
                ("domain", "slice_id", "pc1", "pc2", "explained1", "explained2", "thumbnail"),
            ),
            "embeddings.parquet": _EMBEDDINGS,
        },
    ),
    "familiarity": Kind(
        required=("run_id", "selections"),
        rows="tables/familiarity_checks.sql",
        files={
            "familiarity.parquet": ParquetTable(
                "tables/familiarity.sql",
                (
                    "run_id",
                    "domain",
                    "slice_id",
                    "learned_from",
                    "nearest",
                    "distance",
                    "distance_of_mean",
                    "p_value",
                    "p_value_of_mean",
                    "outside",
                ),
            )
        },
    ),
    "bench": Kind(
        required=("machine", "quick"),
        rows="tables/benchmark_runs.sql",
        files={
            "benchmarks.parquet": ParquetTable(
                "tables/benchmarks.sql",
                (
                    "name",
                    "question",
                    "ratio",
                    "low",
                    "high",
                    "unit",
                    "target",
                    "verdict",
                    "device",
                    "note",
                    "times",
                ),
            ),
            "benchmark_growth.parquet": ParquetTable(
                "tables/benchmark_growth.sql", ("stage", "n_slices", "seconds")
            ),
        },
    ),
    "dataset-rename": Kind(required=("old_name", "new_name"), rows="tables/dataset_renames.sql"),
    "run-mark": Kind(required=("run_ids", "hidden"), rows="tables/run_marks.sql"),
    "train-head": _TRAINING,
    "train-lora": _TRAINING,
    "train-full": _TRAINING,
    "few-label": _TRAINING,
    "train-unet": _TRAINING,
    "zero-shot": _TRAINING,
    "audit": Kind(
        required=("dataset", "verdict", "checks", "pairing"),
        rows="tables/audits.sql",
        files={
            "audit_scores.parquet": ParquetTable(
                "tables/audit_scores.sql", ("image", "mask", "score", "declared", "assigned")
            )
        },
    ),
    "metrics": Kind(
        required=("run_id", "tolerance", "smallest_object"),
        rows="tables/shape_measurements.sql",
        files={
            "shape_metrics.parquet": ParquetTable(
                "tables/shape_metrics.sql",
                (
                    "eval_on",
                    "split",
                    "dimensions",
                    "slice_id",
                    "n_slices",
                    "dice",
                    "boundary_f",
                    "hausdorff_95",
                    "n_true",
                    "n_predicted",
                    "matched_50",
                    "iou_sum_50",
                    "matched_75",
                    "iou_sum_75",
                    "adapted_rand_error",
                    "voi_split",
                    "voi_merge",
                ),
            )
        },
    ),
    "predict": Kind(
        required=("run_id", "inputs", "n_slices"),
        rows="tables/predictions.sql",
        files={
            "objects.parquet": ParquetTable(
                "tables/objects.sql",
                (
                    "input",
                    "object_id",
                    "class",
                    "voxels",
                    "volume_um3",
                    "n_slices",
                    *(
                        f"{axis}{which}"
                        for axis in "zyx"
                        for which in ("", "_nm", "_first", "_last")
                    ),
                ),
            )
        },
    ),
    "evaluate": Kind(
        required=("run_id", "eval_on", "data_keys"),
        rows="tables/evaluations.sql",
        files={"slice_metrics.parquet": ParquetTable("tables/evaluation_metrics.sql", _COUNTS)},
    ),
}
"""The kinds that have tables. Any other kind is a row of ``records`` and nothing more."""
