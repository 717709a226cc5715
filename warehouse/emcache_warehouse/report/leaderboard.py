"""The leaderboard of a report, no wider than its page."""

from __future__ import annotations

from emcache.storage.workspace import Workspace
from emcache_warehouse.choice import Choice, chosen_rows
from emcache_warehouse.report.content import Section, table_of

_COLUMNS = {
    "train_on": "trained on",
    "eval_on": "scored on",
    "iou_fg_mean": "IoU, mean",
    "iou_fg_std": "IoU, std",
    "iou_fg_low": "95 % from",
    "iou_fg_high": "to",
    "n_runs": "runs",
    "distinct_results": "distinct",
    "n_nothing_learned": "learned nothing",
    "seen": "seen in training",
    "split": "split",
    "regime": "regime",
    "longest_edge": "px",
    "precision": "arithmetic",
    "n_slices": "slices",
    "n_near": "near training",
    "audit_accepted": "failed audit accepted",
    "backbone": "backbone",
    "weights": "weights",
    "protocol": "protocol",
    "data": "data",
}
_ALWAYS = ("train_on", "eval_on", "iou_fg_mean", "iou_fg_std", "n_runs")
"""Columns that stay though all rows have one value there."""


def scores(workspace: Workspace, choice: Choice) -> Section:
    """The leaderboard and its chart."""
    section = Section("scores", "Scores")
    rows = chosen_rows(workspace.warehouse, "leaderboard", choice)
    if not rows.is_empty():
        caption = "Leaderboard: foreground IoU over seeds"
        section.tables.append(table_of(caption, rows, _COLUMNS, always=_ALWAYS))
    section.draw("iou", workspace, choice)
    several = {"methods": "kind", "ladder": "rung", "label-efficiency": "annotated_slices"}
    for name, column in several.items():
        # Of one kind, one rung or one number of slices there is nothing to compare.
        if chosen_rows(workspace.warehouse, name, choice)[column].n_unique() > 1:
            section.draw(name, workspace, choice)
    return section
