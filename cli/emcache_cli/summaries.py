"""Sentences and rows about datasets, extractions and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcache.cache.extract import Extraction
    from emcache.cache.plan import Job
    from emcache.data.dataset import Dataset
    from emcache.evaluation.outputs import PlannedFile
    from emcache.progress import Reporter
    from emcache.storage.records import Record
    from emcache.storage.workspace import Workspace


def describe_added(dataset: Dataset) -> list[str]:
    """What a dataset holds, in lines for people."""
    splits = ", ".join(f"{name} {count}" for name, count in dataset.split_counts().items())
    # String order, on purpose, is none of the two.
    natural = "" if dataset.scramble is not None else "; both listed in natural order"
    lines = [
        f"Dataset {dataset.name}: {len(dataset.slices)} slices ({splits}), "
        f"{len(dataset.labelled)} with masks.",
        f"Pairing: {dataset.pairing}{natural}.",
    ]
    if dataset.labelled:
        lines.append(
            f"Masks: {dataset.classes.words}"
            + (
                f"; {dataset.grey_pixels} pixels lie strictly between 0 and 255."
                if dataset.classes.threshold not in (None, 1)
                else "."
            )
        )
    if dataset.grey_window is not None:
        lines.append(
            f"Greys: values from {dataset.grey_window} become black to white, all slices alike."
        )
    return lines


def describe_mark(record: Record) -> str:
    """What became of the runs that were set aside or taken back."""
    runs = ", ".join(record.config["run_ids"])
    if record.config["hidden"]:
        return f"Set aside: {runs}. Take back with `emcache runs unhide`; --hidden shows them."
    return f"Taken back: {runs}."


def dataset_rows(workspace: Workspace, reporter: Reporter) -> list[dict[str, Any]]:
    """One row a dataset."""
    from emcache.data.dataset import load_dataset
    from emcache.errors import EmcacheError

    rows = []
    for name in workspace.dataset_names():
        options = workspace.dataset_options(name)
        row = {"dataset": name, "layout": options.get("layout"), "root": options.get("root")}
        try:
            dataset = load_dataset(workspace, name, reporter)
        except EmcacheError as error:
            # One dataset on a disk that is not there must not hide the others.
            reporter.say(f"Warning: {name}: {error}")
            rows.append({**row, "slices": None, "labelled": None, "splits": None})
            continue
        splits = ", ".join(f"{k} {v}" for k, v in dataset.split_counts().items())
        counts = {"slices": len(dataset.slices), "labelled": len(dataset.labelled)}
        rows.append({**row, **counts, "splits": splits})
    return rows


def job_rows(job: Job) -> list[dict[str, Any]]:
    """What an extraction would make: one row for each grid shape."""
    from emcache.cache.recipe import grid_name, positions_by_grid

    rows = []
    for grid, positions in positions_by_grid(job.places).items():
        share = len(positions) * grid[0] * grid[1]
        total = sum(place.grid[0] * place.grid[1] for place in job.places)
        rows.append(
            {
                "feature_set": job.name,
                "slices": len(positions),
                "grid": grid_name(grid),
                "dim": job.spec.dim,
                "token_gb": job.token_bytes * share / total / 1e9,
                "files": job.n_files,
            }
        )
    return rows


def run_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row a run, for the end of training; scores are for ``emcache query``."""
    names = ("backbone", "weights", "longest_edge", "protocol", "train_on", "seed")
    more = ("best_epoch", "epochs_run", "best_val_loss", "stopped_by", "train_seconds")
    return [
        {"run_id": record.id, **{name: record.config[name] for name in (*names, *more)}}
        for record in records
    ]


def evaluation_rows(record: Record) -> list[dict[str, Any]]:
    """One row for each dataset and split that was scored."""
    import polars as pl

    from emcache.training.counts import Counts

    table = pl.read_parquet(record.file("slice_metrics.parquet"), glob=False)
    totals = table.group_by("eval_on", "split", maintain_order=True).agg(
        pl.len().alias("n_slices"), pl.sum("tp", "fp", "fn", "tn")
    )
    return [
        {
            "run_id": record.config["run_id"],
            "train_on": record.config["train_on"],
            "eval_on": row["eval_on"],
            "split": row["split"],
            "n_slices": row["n_slices"],
            "iou_fg": Counts(row["tp"], row["fp"], row["fn"], row["tn"]).iou,
        }
        for row in totals.rows(named=True)
    ]


def prediction_rows(files: Sequence[PlannedFile]) -> list[dict[str, Any]]:
    """One row for each input."""
    return [
        {"input": str(file.input), "slices": len(file.pages), "mask": str(file.mask)}
        for file in files
    ]


def extraction_row(job: Job, done: Extraction, reporter: Reporter) -> dict[str, Any]:
    """What an extraction did; says so where there was nothing to do."""
    if done.record is None:
        reporter.say(
            f"Nothing to extract: {done.feature_set.name} holds all {len(job.places)} slices."
        )
    return {
        "feature_set": done.feature_set.name,
        "slices": len(job.places),
        "computed": done.computed,
        "copied": done.copied,
        "token_gb": job.token_bytes / 1e9,
    }
