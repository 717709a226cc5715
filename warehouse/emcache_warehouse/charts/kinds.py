"""Every chart of the warehouse, registered once: the command line and the report read it here.

The modules that draw are imported by the functions below, so that help needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


@_chart(
    "iou",
    "Test scores: a bar for the mean, a dot for every seed, a tick for the paper's figure.",
    labelled=True,
)
def _iou(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.iou import iou_chart, iou_rows

    return iou_chart(iou_rows(workspace.warehouse, choice))


@_chart("curves", "Training and validation loss by epoch, one line for each run.", labelled=True)
def _curves(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.curves import curve_rows, curves_chart

    return curves_chart(curve_rows(workspace.warehouse, choice))


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
    from emcache_warehouse.charts.gap import gap_chart, gap_rows

    return gap_chart(gap_rows(workspace.warehouse, choice))


@_chart(
    "pca", "Slices in the plane of their first two principal components; hover shows the slice."
)
def _pca(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.pca import pca_chart, pca_rows

    return pca_chart(pca_rows(workspace.warehouse, choice))


@_chart("transfer", "What runs lose on other datasets, against the distance to them.")
def _transfer(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.transfer import transfer_chart, transfer_rows

    return transfer_chart(transfer_rows(workspace.warehouse, choice))


@_chart("cost", "Seconds of the backbone spent and saved by the cache, and its size on disk.")
def _cost(workspace: Workspace, choice: Choice) -> Whole:
    from emcache_warehouse.charts.cost import cost_chart, cost_rows

    return cost_chart(cost_rows(workspace.warehouse, choice))


@_chart(
    "bench",
    "How far each benchmark is beyond its target, and how time grows with the slices.",
    chooses=False,
)
def _bench(workspace: Workspace, choice: Choice) -> Whole:
    del choice  # benchmarks are of machines, and not of runs
    from emcache_warehouse.charts.bench import bench_chart, bench_rows

    return bench_chart(bench_rows(workspace.warehouse))
