"""A study by workers: a run is a piece of work; tokens are made before the runs that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emcache.cache.extract import run_extractions
from emcache.cache.plan import Job
from emcache.cluster.pool import Outcome, Pool
from emcache.errors import EmcacheError
from emcache.progress import Quiet, Reporter
from emcache.storage.workspace import Workspace
from emcache.studies.arithmetic import with_one_precision
from emcache.studies.file import Cell, Study, StudyGap
from emcache.studies.gaps import GapResult, run_study_gaps
from emcache.studies.records import StudyRecords
from emcache.studies.run import CellResult, check_datasets, request_of, run_cell, run_study
from emcache.training.regimes import find_regime
from emcache.training.run import plan_training


@dataclass(frozen=True, slots=True)
class CellWork:
    """A cell, or one seed of it, as a worker is told of it."""

    workspace: Workspace
    cell: Cell
    device: str
    number: int
    """Of the cell in the study."""


@dataclass(frozen=True, slots=True)
class _GapWork:
    workspace: Workspace
    study: Study
    device: str


def carry_out_study(
    workspace: Workspace,
    study: Study,
    device: str,
    reporter: Reporter,
    pool: Pool | None,
    data: Path | None = None,
) -> tuple[list[CellResult], list[GapResult]]:
    """Carry out what is left of a study: trainings, then distances.

    Args:
        workspace: Where.
        study: What.
        device: To train on.
        reporter: Receives progress.
        pool: Workers; None for this process.
        data: Folder of the study's own datasets, if not that of its file.

    Raises:
        StudyError: A dataset is not there, cannot be trained on, or failed its audit without
            being accepted; nothing has been trained.
        ClusterError: The workers are gone.
    """
    study = with_one_precision(workspace, study, device, reporter, keep=True)
    if pool is None:
        results = list(run_study(workspace, study, device, reporter, data))
        return results, list(run_study_gaps(workspace, study, device, reporter))
    results = share_study(workspace, study, device, reporter, pool, data)
    return results, share_gaps(workspace, study, device, reporter, pool)


def share_study(
    workspace: Workspace,
    study: Study,
    device: str,
    reporter: Reporter,
    pool: Pool,
    data: Path | None = None,
) -> list[CellResult]:
    """Train what is left of a study by workers; what becomes of each cell, in their order.

    A run that fails is reported and the others go on.

    Args:
        workspace: Where; on a file system that the workers share.
        study: What.
        device: To train on, of the workers.
        reporter: Receives progress.
        pool: The workers.
        data: Folder of the study's own datasets, if not that of its file.

    Raises:
        StudyError: A dataset is not there, cannot be trained on, or failed its audit without
            being accepted; nothing has been trained.
        ClusterError: The workers are gone.
    """
    check_datasets(workspace, study, data or study.folder, reporter)
    _make_features(workspace, study, device, reporter, pool)
    works = [
        CellWork(workspace, _of_seed(cell, seed), device, number)
        for number, cell in enumerate(study.cells)
        for seed in cell.request.seeds
    ]
    results: list[list[CellResult]] = [[] for _ in study.cells]
    failed = 0
    with reporter.task(study.name, len(works), "runs") as task:

        def watch(running: int) -> None:
            task.advance(0, f"{running} running, {failed} failed")

        for outcome in pool.run(carry_out_cell, works, watch):
            result = _result(outcome)
            failed += result.problem is not None
            if result.problem is not None:
                words = f"{result.cell.words}, seed {result.cell.request.seeds[0]}"
                reporter.say(f"Error: {words}: {result.problem}")
            results[outcome.item.number].append(result)
            task.advance()
    return [_together(cell, results[number]) for number, cell in enumerate(study.cells)]


def share_gaps(
    workspace: Workspace, study: Study, device: str, reporter: Reporter, pool: Pool
) -> list[GapResult]:
    """Measure the distances of a study that no record holds by workers.

    Args:
        workspace: Where.
        study: What; its trainings are done, as far as they could be.
        device: To extract on, of the workers.
        reporter: Receives progress.
        pool: The workers.

    Raises:
        ClusterError: The workers are gone.
    """
    if not study.gaps:
        return []
    works = [_GapWork(workspace, replace(study, gaps=(gap,)), device) for gap in study.gaps]
    found: dict[StudyGap, GapResult] = {}
    with reporter.task(f"{study.name}, distances", len(works), "tables") as task:
        for outcome in pool.run(_measure, works):
            gap = outcome.item.study.gaps[0]
            found[gap] = outcome.value or GapResult(gap, 0, 0, str(outcome.problem))
            if (problem := found[gap].problem) is not None:
                reporter.say(f"Error: {gap.words}: {problem}")
            task.advance()
    return [found[gap] for gap in study.gaps]


def carry_out_cell(work: CellWork) -> CellResult:
    """In a worker: train what no record holds."""
    return run_cell(work.workspace, work.cell, work.device, Quiet())


def _measure(work: _GapWork) -> GapResult:
    (result,) = run_study_gaps(work.workspace, work.study, work.device, Quiet())
    return result


def _make_features(
    workspace: Workspace, study: Study, device: str, reporter: Reporter, pool: Pool
) -> None:
    """Extract what the cells read, shard by shard, before the first run asks for it."""
    works = [
        CellWork(workspace, cell, device, number)
        for number, cell in enumerate(study.cells)
        if _reads_cache(cell)
    ]
    wanted: dict[tuple[str, ...], Sequence[Job]] = {}
    for outcome in pool.run(find_missing, works):
        # What cannot be planned is said by the runs that need it.
        for jobs in outcome.value or ():
            wanted.setdefault(tuple(job.name for job in jobs), jobs)
    for jobs in wanted.values():
        try:
            run_extractions(jobs, reporter, pool)
        except EmcacheError as error:
            reporter.say(f"Error: extracting {jobs[0].selection}: {error}")


def _reads_cache(cell: Cell) -> bool:
    regime = find_regime(cell.request.regime)
    return regime.has_backbone and not regime.runs_backbone


def find_missing(work: CellWork) -> list[Sequence[Job]]:
    """In a worker, whose device and arithmetic decide it: the extractions that a cell lacks."""
    request = request_of(work.workspace, work.cell, work.device)
    plan = plan_training(work.workspace, request, Quiet())
    runs = StudyRecords(work.workspace).runs
    left = any(plan.fingerprint(seed) not in runs for seed in request.seeds)
    return list(plan.inputs.missing) if left else []


def _of_seed(cell: Cell, seed: int) -> Cell:
    return replace(cell, request=replace(cell.request, seeds=(seed,)))


def _result(outcome: Outcome[CellWork, CellResult]) -> CellResult:
    return outcome.value or CellResult(outcome.item.cell, 0, 0, 0, str(outcome.problem))


def _together(cell: Cell, results: Sequence[CellResult]) -> CellResult:
    return CellResult(
        cell,
        sum(result.done_before for result in results),
        sum(result.trained for result in results),
        sum(result.evaluated for result in results),
        next((result.problem for result in results if result.problem), None),
    )
