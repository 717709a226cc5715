"""Every chart of the warehouse, registered once: the command line and the report read it here.

The modules that draw are imported by the functions below, so that help needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from emcache.storage.workspace import Workspace
    from emcache_warehouse.charts.theme import Whole
    from emcache_warehouse.choice import Choice

    Draw = Callable[[Workspace, Choice], Whole]


@dataclass(frozen=True, slots=True)
class ChartKind:
    """A chart that answers one kind of question."""

    name: str
    caption: str
    """What it shows, in a sentence."""
    draw: Draw
    chooses: bool
    """Whether it can show some runs and data alone."""
    labelled: bool
    """Whether its bars or panels may be called by a column of one's choice."""


CHARTS: dict[str, ChartKind] = {}
"""Every chart by its name."""


def _chart(
    name: str, caption: str, *, chooses: bool = True, labelled: bool = False
) -> Callable[[Draw], Draw]:
    def register(draw: Draw) -> Draw:
        CHARTS[name] = ChartKind(name, caption, draw, chooses, labelled)
        return draw

    return register


# The named query of a chart's rows, and the column whose datasets have colours of their own.
_QUERIES = {
    "iou": ("iou", "eval_on"),
    "curves": ("curves", None),
    "gap": ("gap", None),
    "pca": ("gap-points", "domain"),
    "transfer": ("transfer", "eval_on"),
    "cost": ("cost", None),
    "alignment": ("alignment", None),
    "ladder": ("ladder", None),
    "label-efficiency": ("label-efficiency", None),
    "methods": ("methods", None),
}


def chart_rows(name: str, database: Path, choice: Choice | None = None) -> pl.DataFrame:
    """The rows that a chart draws.

    Args:
        name: ``iou``, ``curves``, ``gap``, ``pca``, ``transfer``, ``cost``,
            ``alignment``, ``ladder``, ``label-efficiency`` or ``methods``.
        database: The warehouse's file.
        choice: What of it; None for all that was not set aside.

    Raises:
        WarehouseError: The warehouse cannot be read, or nothing is left.
    """
    from emcache_warehouse.charts.colours import with_colours
    from emcache_warehouse.choice import EVERYTHING, chosen_rows

    query, coloured = _QUERIES[name]
    rows = chosen_rows(database, query, choice or EVERYTHING)
    return with_colours(database, rows, coloured) if coloured else rows


@_chart(
    "iou",
    "Test scores: a bar for the mean, a dot for every seed, a tick for the paper's figure.",
    labelled=True,
)
def _iou(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.iou import iou_chart

    return iou_chart(chart_rows("iou", workspace.warehouse, choice))


@_chart("curves", "Training and validation loss by epoch, one line for each run.", labelled=True)
def _curves(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.curves import curves_chart

    return curves_chart(chart_rows("curves", workspace.warehouse, choice))


@_chart(
    "paper-comparison",
    "Every score of the paper (arXiv 2602.08505) with our own figures beside it.",
    labelled=True,
)
def _paper(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.paper import paper_rows, score_chart

    rows = paper_rows(workspace.warehouse, choice=choice)
    return score_chart(rows, "Every score of the paper, and ours")


@_chart("gap", "How far apart domains lie: every pair, and what LoRA did to the distances.")
def _gap(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.gap import gap_chart

    return gap_chart(chart_rows("gap", workspace.warehouse, choice))


@_chart(
    "pca", "Slices in the plane of their first two principal components; hover shows the slice."
)
def _pca(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.pca import pca_chart

    return pca_chart(chart_rows("pca", workspace.warehouse, choice))


@_chart("transfer", "What runs lose on other datasets, against the distance to them.")
def _transfer(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.transfer import transfer_chart

    return transfer_chart(chart_rows("transfer", workspace.warehouse, choice))


@_chart("alignment", "What each alignment does to training alone, together, and to transfer.")
def _alignment(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.alignment import alignment_chart

    return alignment_chart(chart_rows("alignment", workspace.warehouse, choice))


@_chart("ladder", "What adapting more of the backbone brings, and what it costs.")
def _ladder(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.ladder import ladder_chart

    return ladder_chart(chart_rows("ladder", workspace.warehouse, choice))


@_chart("label-efficiency", "Scores against the number of slices that were annotated.")
def _efficiency(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.efficiency import efficiency_chart

    return efficiency_chart(chart_rows("label-efficiency", workspace.warehouse, choice))


@_chart(
    "methods", "What every method scores, grouped by what is trained, beside published figures."
)
def _methods(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.methods import methods_chart

    return methods_chart(chart_rows("methods", workspace.warehouse, choice))


@_chart("cost", "Seconds of the backbone spent and saved by the cache, and its size on disk.")
def _cost(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.cost import cost_chart

    return cost_chart(chart_rows("cost", workspace.warehouse, choice))


@_chart(
    "audit",
    "How well every mask fits every image, and the slices whose own masks fit worst.",
    chooses=False,
)
def _audit(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.audit import audit_chart, audit_rows, worst_slices

    # Without a dataset, of the one that was audited last.
    rows = audit_rows(workspace.warehouse, next(iter(choice.datasets), ""))
    worst = [] if rows.is_empty() else worst_slices(workspace.runs, rows["audit_id"][0])
    return audit_chart(rows, worst)


@_chart(
    "bench",
    "How far each benchmark is beyond its target, and how time grows with the slices.",
    chooses=False,
)
def _bench(workspace: Workspace, choice: Choice) -> Whole:
    del choice  # benchmarks are of machines, and not of runs
    from emcache_warehouse.charts.bench import bench_chart, bench_rows

    return bench_chart(bench_rows(workspace.warehouse))
