"""Rows and sentences about studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emcache.studies.file import Cell, Study
    from emcache.studies.gaps import GapResult
    from emcache.studies.run import CellPlan, CellResult


def plan_rows(plans: Sequence[CellPlan]) -> list[dict[str, Any]]:
    """One row a cell: what is left and what it costs."""
    return [
        {
            **_identity(plan.cell),
            "seeds": len(plan.cell.request.seeds),
            "done": None if plan.done is None else len(plan.done),
            "extract_slices": plan.extract_slices,
            "token_gb": plan.token_bytes / 1e9,
            "most_steps": plan.most_steps,
            "most_hours": plan.most_hours,
            "problem": plan.problem,
        }
        for plan in plans
    ]


def plan_in_words(study: Study, plans: Sequence[CellPlan]) -> str:
    """The whole plan in a sentence."""
    left = sum(len(plan.left) for plan in plans)
    runs = sum(len(plan.cell.request.seeds) for plan in plans)
    slices = sum(plan.extract_slices for plan in plans)
    tokens = sum(plan.token_bytes for plan in plans) / 1e9
    steps = sum(plan.most_steps for plan in plans)
    gaps = f"; {len(study.gaps)} sets of distances at the end" if study.gaps else ""
    return (
        f"Study {study.name}: {runs} runs, {runs - left} done, {left} to train: at most {steps:,} "
        f"steps; {slices} slices to extract, {tokens:.3g} GB of tokens{gaps}."
    )


def gaps_in_words(results: Sequence[GapResult]) -> str:
    """What became of a study's distances, in a sentence."""
    measured = sum(result.measured for result in results)
    before = sum(result.done_before for result in results)
    failed = sum(result.problem is not None for result in results)
    trouble = f", {failed} failed" if failed else ""
    return f"Distances: {measured} sets measured, {before} there before{trouble}."


def result_rows(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    """One row a cell: what became of it."""
    return [
        {
            **_identity(result.cell),
            "seeds": len(result.cell.request.seeds),
            "done_before": result.done_before,
            "trained": result.trained,
            "evaluated": result.evaluated,
            "problem": result.problem,
        }
        for result in results
    ]


def _identity(cell: Cell) -> dict[str, Any]:
    request = cell.request
    return {
        "regime": request.regime,
        "backbone": cell.backbone,
        "weights": cell.weights,
        "longest_edge": request.features.longest_edge,
        "protocol": request.protocol.label,
        "train_on": " + ".join(request.datasets),
        "sampling": str(request.sampling),
    }
