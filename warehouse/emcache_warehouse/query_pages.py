"""Pages of the documentation about named queries: what each answers, its columns, its SQL.

``python -m emcache_warehouse.query_pages docs/queries`` writes them anew.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from emcache_warehouse.named import NamedQuery, list_queries
from emcache_warehouse.schema import describe_schema
from emcache_warehouse.sync import sync

# Columns that only a query has, and no table.
_OWN = {
    "adapted_rand_error_mean": "Mean over slices or volumes that have objects.",
    "boundary_f_mean": "Mean over slices that have foreground.",
    "dice_mean": "Mean over slices or volumes that have foreground.",
    "hausdorff_95_mean": "Mean over slices where mask and prediction have foreground, in pixels.",
    "n_distances": "Slices that the mean distance is of.",
    "object_f1_50": "Harmonic mean of precision and recall of objects, at an IoU above 0.5.",
    "object_f1_75": "The same at 0.75.",
    "object_precision_50": "Share of the predicted objects that match a true one at an IoU above "
    "0.5.",
    "object_precision_75": "The same at 0.75.",
    "object_recall_50": "Share of the true objects that match a predicted one at an IoU above 0.5.",
    "object_recall_75": "The same at 0.75.",
    "panoptic_quality_50": "Sum of the IoU of matches, through the mean number of true and "
    "predicted objects.",
    "panoptic_quality_75": "The same at 0.75.",
    "voi_merge_mean": "Mean over slices or volumes that have objects, bits.",
    "voi_split_mean": "Mean over slices or volumes that have objects, bits.",
    "backbone_seconds_saved": "Seconds that the backbone would have run in training without the "
    "cache.",
    "break_even_epoch": "Epochs of one run on the fly that cost as much as the extraction.",
    "cache_gb": "Size of the feature sets that the run read, on disk; 0 where the backbone ran "
    "instead.",
    "answer": "Which of the two is better, if that is clear; else why not.",
    "difference_high": "Its upper end.",
    "difference_low": "Lower end of the 95 % interval of the difference.",
    "iou_fg_a": "Mean foreground IoU of a.",
    "iou_fg_b": "Mean foreground IoU of b.",
    "n_seeds": "Seeds that both have.",
    **{
        f"{name}_{side}": f"{words} of {side}."
        for side in "ab"
        for name, words in (
            ("regime", "Regime"),
            ("backbone", "Backbone"),
            ("protocol", "Protocol"),
            ("train_on", "Training data"),
            ("setup", "Twelve digits of the setup's fingerprint"),
        )
    },
    "extract_seconds": "Seconds of the backbone, over all extractions of the feature set.",
    "identical_repeat": "Whether another run has the same pixel totals.",
    "iou_drop": "Score on its own test slices less the score on the other dataset.",
    "iou_source": "Foreground IoU on the test slices of the dataset trained on.",
    "iou_target": "Foreground IoU on the other dataset.",
    "is_best": "Whether it is the epoch with the lowest validation loss.",
    "n_extractions": "Extractions that worked on the feature set.",
    "margin": "How many times better than the target asks; below 1 it is missed.",
    "margin_high": "The same of the best round.",
    "margin_low": "The same of the worst round.",
    "kind": "What is trained: nothing, a few labels, a head, an adapter, or all.",
    "memory_gb": "Most memory that the training held, as `peak_memory_bytes` of `runs`.",
    "method": "Regime and head; of a head that was fitted, the head alone.",
    "our_head_only": "Trainable parameters of our frozen runs, in millions.",
    "our_lora_plus_head": "Trainable parameters of our LoRA runs, in millions.",
    "paper_iou_fg": "The paper's mean for the same cell.",
    "rung": "What was adapted: frozen, LoRA (on the last blocks), or all weights; and what "
    "aligned.",
    "seconds_per_slice": "Seconds divided by the number of slices.",
    "train_seconds_per_run": "Mean seconds of training.",
}


def query_page(query: NamedQuery, meanings: Mapping[str, str]) -> str:
    """One page, Markdown.

    Args:
        query: What it is about.
        meanings: What columns mean, by their names.
    """
    lines = [f"# `{query.name}`", "", query.description, ""]
    given = "".join(f" -p {p.name}={p.default}" for p in query.parameters if p.default)
    lines += ["```sh", f"emcache query --name {query.name}{given}", "```", ""]
    if query.parameters:
        lines += ["| parameter | default | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{p.name}` | `{p.default}` | {p.meaning} |" for p in query.parameters]
        lines.append("")
    lines += ["| column | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {meanings.get(name, _OWN.get(name, ''))} |" for name in query.columns]
    lines += ["", "```sql", query.sql, "```", ""]
    return "\n".join(lines)


def query_pages() -> dict[str, str]:
    """Every page by its file's name."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "warehouse.duckdb"
        sync(Path(folder) / "runs", database)
        schema = describe_schema(database)
    meanings: dict[str, str] = {}
    for name, meaning in schema.select("column", "meaning").rows():
        if meaning:
            meanings.setdefault(name, meaning)
    return {f"{query.name}.md": query_page(query, meanings) for query in list_queries()}


def write_pages(folder: Path) -> None:
    """Write every page, and remove those of queries that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = query_pages()
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
