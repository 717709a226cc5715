"""The sections of a report, each from named queries and the charts of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import polars as pl

from emcache.storage.workspace import Workspace
from emcache_warehouse.charts.audit import Worst, audit_chart, audit_rows, worst_slices
from emcache_warehouse.charts.bench import bench_rows
from emcache_warehouse.charts.curves import curves_chart
from emcache_warehouse.charts.kinds import CHARTS, chart_rows
from emcache_warehouse.charts.theme import Whole
from emcache_warehouse.choice import EVERYTHING, Choice, chosen_rows, run_variables
from emcache_warehouse.query import run_query
from emcache_warehouse.report.content import Picture, Section, table_of
from emcache_warehouse.report.leaderboard import scores
from emcache_warehouse.report.pictures import JPEG, shown_smaller, worst_pictures
from emcache_warehouse.report.summary import summary

_PICTURES = 8
_MOST_EPOCHS = 3000
_MOST_SCORES = 3600

# Columns that stay though all rows have one value there.
_OF_RUNS = ("train_on", "runs", "seeds", "seconds")
_OF_CELLS = (
    "train_on",
    "our_eval_on",
    "paper_iou_fg_mean",
    "iou_fg_mean",
    "iou_fg_std",
    "difference",
)
_OF_GAPS = (
    "domain_a",
    "domain_b",
    "n_a",
    "n_b",
    "frechet",
    "frechet_low",
    "frechet_high",
    "frechet_at_n",
    "frechet_within_a",
    "frechet_within_b",
    "kernel",
    "probe_auroc",
    "probe_p_value",
)

_DATASETS = """
SELECT
    datasets.dataset,
    datasets.n_slices,
    datasets.n_labelled,
    datasets.voxel_size_nm,
    datasets.pairing,
    (SELECT arg_max(verdict, audit_id) FROM audits WHERE audits.dataset = datasets.dataset) AS audit
FROM datasets
QUALIFY record_id = max(record_id) OVER (PARTITION BY dataset)
ORDER BY dataset
"""
_RUNS = """
SELECT
    backbone, weights, longest_edge, pixel_size_nm, regime, protocol, train_on, sampling,
    count(*) AS runs, list(DISTINCT seed ORDER BY seed) AS seeds, sum(train_seconds) AS seconds
FROM shown_runs GROUP BY ALL ORDER BY ALL
"""
_VERSIONS = """
SELECT package, string_agg(DISTINCT version, ', ' ORDER BY version) AS versions
FROM (
    SELECT unnest(json_keys(versions)) AS package, versions->>package AS version FROM records
)
GROUP BY package ORDER BY package
"""
_CHECKS = """
SELECT audits.dataset, checks.name, checks.verdict, checks.message
FROM audit_checks AS checks
JOIN (SELECT * FROM audits QUALIFY audit_id = max(audit_id) OVER (PARTITION BY dataset)) AS audits
    USING (audit_id)
ORDER BY audits.dataset, checks.rowid
"""


def all_sections(workspace: Workspace, choice: Choice = EVERYTHING) -> list[Section]:
    """Every section, in order; one without data says which command fills it.

    Args:
        workspace: Whose warehouse is asked.
        choice: Of which runs and data; see :func:`emcache_warehouse.choice.of_runs`.
    """
    # Pictures come before tables.
    build: tuple[Callable[[Workspace, Choice], Section], ...] = (
        summary,
        scores,
        worst,
        gaps,
        curves,
        paper,
        audits,
        cost,
        what_was_run,
    )
    return [*(section(workspace, choice) for section in build), speed(workspace)]


def what_was_run(workspace: Workspace, choice: Choice) -> Section:
    """Datasets, trainings and versions."""
    section = Section("run", "What was run")
    database = workspace.warehouse
    datasets = run_query(database, _DATASETS, {})
    if datasets.is_empty():
        section.notes.append("No dataset yet; add one with `emcache dataset add`.")
    else:
        headings = {
            "dataset": "dataset",
            "n_slices": "slices",
            "n_labelled": "with masks",
            "voxel_size_nm": "voxel size z, y, x (nm)",
            "pairing": "pairing",
            "audit": "audit",
        }
        section.tables.append(table_of("Datasets", datasets, headings))
    runs = run_query(database, _RUNS, {}, variables=run_variables(database, choice))
    if runs.is_empty():
        section.notes.append("No training yet; start one with `emcache train-head`.")
    else:
        headings = {
            "backbone": "backbone",
            "weights": "weights",
            "longest_edge": "longest edge (px)",
            "pixel_size_nm": "pixel (nm)",
            "regime": "regime",
            "protocol": "protocol",
            "train_on": "trained on",
            "sampling": "sampling",
            "runs": "runs",
            "seeds": "seeds",
            "seconds": "seconds",
        }
        section.tables.append(table_of("Trainings", runs, headings, always=_OF_RUNS))
        if runs["weights"].str.starts_with("random:").any():
            section.notes.append(
                "Weights called random are untrained: those scores say what a head learned, not "
                "what a backbone knows."
            )
    versions = run_query(database, _VERSIONS, {})
    headings = {"package": "package", "versions": "versions"}
    section.tables.append(table_of("Versions", versions, headings))
    return section


def paper(workspace: Workspace, choice: Choice) -> Section:
    """Our figures beside the study's."""
    section = Section("paper", "Beside the study (arXiv 2602.08505)")
    rows = chosen_rows(workspace.warehouse, "paper-comparison", choice).filter(
        pl.col("iou_fg_mean").is_not_null()
    )
    if rows.is_empty():
        section.notes.append(
            "No run is of a cell of the study's tables yet; `emcache run studies/paper.toml` "
            "trains them."
        )
        return section
    headings = {
        "paper_table": "table",
        "backbone": "backbone",
        "regime": "regime",
        "train_on": "trained on",
        "our_eval_on": "scored on",
        "weights": "our weights",
        "longest_edge": "px",
        "paper_iou_fg_mean": "the study",
        "iou_fg_mean": "ours",
        "iou_fg_std": "std",
        "difference": "difference",
    }
    section.tables.append(table_of("Cell by cell", rows, headings, always=_OF_CELLS))
    section.draw("paper-comparison", workspace, choice)
    return section


def gaps(workspace: Workspace, choice: Choice) -> Section:
    """Distances between domains."""
    section = Section("gaps", "Gaps between domains")
    database = workspace.warehouse
    rows = chosen_rows(database, "gap", choice)
    if not rows.is_empty():
        headings = {
            "domain_a": "first",
            "domain_b": "second",
            "backbone": "backbone",
            "weights": "weights",
            "regime": "regime",
            "align": "aligned by",
            "level": "level",
            "class": "class",
            "n_a": "N",
            "n_b": "N",
            "dim": "D",
            "effective_rank": "effective rank",
            "frechet": "Frechet",
            "frechet_low": "low",
            "frechet_high": "high",
            "n_yardstick": "yardstick N",
            "frechet_at_n": "between",
            "frechet_within_a": "within first",
            "frechet_within_b": "within second",
            "kernel": "kernel",
            "probe_auroc": "AUROC",
            "probe_p_value": "p",
        }
        caption = "Distances, with 95 % intervals"
        section.tables.append(table_of(caption, rows, headings, always=_OF_GAPS))
        section.notes.append(
            "Distances compare at one N: those under the yardstick N do. A dash means that there "
            "are too few slices to tell."
        )
    section.draw("gap", workspace, choice)
    if not rows.is_empty():
        section.draw("pca", workspace, choice)
        section.draw("transfer", workspace, choice)
    scores = chosen_rows(database, "alignment", choice)
    if (scores["aligned_by"] != "none").any():
        section.draw("alignment", workspace, choice)
        differences = chosen_rows(database, "closed", choice)
        headings = {
            "comparison": "comparison",
            "eval_on": "scored on",
            "train_on": "trained on",
            "aligned_by": "aligned by",
            "backbone": "backbone",
            "weights": "weights",
            "regime": "regime",
            "protocol": "protocol",
            "n_seeds": "seeds",
            "iou_before": "IoU before",
            "iou_after": "IoU after",
            "iou_change": "change",
            "iou_change_low": "low",
            "iou_change_high": "high",
            "answer": "answer",
        }
        caption = "What alignment changes, with 95 % intervals over seeds"
        always = ("comparison", "eval_on", "train_on", "aligned_by")
        section.tables.append(table_of(caption, differences, headings, always=always))
    return section


def curves(workspace: Workspace, choice: Choice) -> Section:
    """Losses by epoch."""
    section = Section("curves", "Learning curves")
    rows = chart_rows("curves", workspace.warehouse, choice)
    every = -(-rows.height // _MOST_EPOCHS) if rows.height else 1
    if every > 1:
        section.notes.append(f"Every {every}th epoch is drawn; `emcache chart curves` draws all.")
        rows = rows.filter((pl.col("epoch") - 1) % every == 0)
    section.add("chart-curves", CHARTS["curves"].caption, lambda: curves_chart(rows))
    return section


def worst(workspace: Workspace, choice: Choice) -> Section:
    """Slices with the lowest scores."""
    section = Section("worst", "Worst slices")
    rows = chosen_rows(workspace.warehouse, "worst-slices", choice, {"limit": "200"})
    if rows.is_empty():
        section.notes.append("No slice has been scored yet; `emcache train-head` does so.")
        return section
    section.pictures, note = worst_pictures(workspace, rows, _PICTURES)
    section.notes.append("Mask in blue, prediction in orange.")
    if note:
        section.notes.append(note)
    headings = {
        "eval_on": "dataset",
        "slice_id": "slice",
        "split": "split",
        "iou_fg": "IoU",
        "backbone": "backbone",
        "weights": "weights",
        "train_on": "trained on",
        "seed": "seed",
    }
    section.tables.append(
        table_of("Lowest foreground IoU", rows, headings, most=12, always=("slice_id", "iou_fg"))
    )
    return section


def audits(workspace: Workspace, choice: Choice) -> Section:
    """What the audits found."""
    section = Section("audits", "Audits: do the masks belong to the slices?")
    database = workspace.warehouse
    rows = run_query(database, _CHECKS, {})
    if choice.datasets and not rows.is_empty():
        names = [name.partition(":")[0] for name in choice.datasets]
        rows = rows.filter(pl.col("dataset").is_in(names))
    if rows.is_empty():
        section.notes.append("No audit yet; `emcache dataset audit NAME` makes one.")
        return section
    headings = {"dataset": "dataset", "name": "check", "verdict": "verdict", "message": "finding"}
    section.tables.append(table_of("Checks of the newest audits", rows, headings))
    for number, dataset in enumerate(rows["dataset"].unique(maintain_order=True)):
        found = audit_rows(database, dataset)
        if found.is_empty():
            continue
        pictures = [
            replace(item, data=smaller, media=JPEG)
            for item in worst_slices(workspace.runs, found["audit_id"][0])
            if (smaller := shown_smaller(item.data)) is not None
        ]
        if found.height <= _MOST_SCORES:
            section.add(
                f"chart-audit-{number}",
                f"How well every mask fits every image of {dataset}.",
                _audit_chart(found, pictures),
            )
            continue
        section.notes.append(
            f"Slices of {dataset} whose own masks fit worst stand below; `emcache chart audit "
            f"{dataset}` draws all {found.height} scores."
        )
        what = "the outline of its mask (blue)"
        section.pictures += [
            Picture(
                item.data,
                f"slice {item.slice_id} of {dataset}",
                f"slice {item.slice_id} of {dataset} with {what}",
                item.media,
            )
            for item in pictures
        ]
    return section


def _audit_chart(rows: pl.DataFrame, pictures: Sequence[Worst]) -> Callable[[], Whole]:
    return lambda: audit_chart(rows, pictures)


def cost(workspace: Workspace, choice: Choice) -> Section:
    """What the cache cost and saved."""
    section = Section("cost", "Cost")
    rows = chart_rows("cost", workspace.warehouse, choice)
    if not rows.is_empty():
        shown = rows.with_columns(gigabytes=pl.col("total_bytes") / 1e9)
        headings = {
            "feature_set": "feature set",
            "n_slices": "slices",
            "gigabytes": "GB",
            "extract_seconds": "extraction (s)",
            "n_runs": "runs",
            "backbone_seconds_saved": "saved (s)",
            "break_even_epoch": "break-even epoch",
        }
        section.tables.append(table_of("The cache", shown, headings))
        section.notes.append(
            "Break-even epoch: how many epochs of one run through the backbone cost as much as the "
            "extraction did."
        )
    section.draw("cost", workspace, choice)
    return section


def speed(workspace: Workspace) -> Section:
    """What the benchmarks of this machine came to."""
    section = Section("speed", "Speed")
    rows = bench_rows(workspace.warehouse)
    if not rows.ratios.is_empty():
        headings = {
            "name": "benchmark",
            "ratio": "ratio",
            "low": "lowest",
            "high": "highest",
            "target": "target",
            "verdict": "verdict",
            "question": "what",
        }
        section.tables.append(table_of("Benchmarks of this machine", rows.ratios, headings))
    section.draw("bench", workspace, EVERYTHING)
    return section
