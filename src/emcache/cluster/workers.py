"""Starting workers, or finding those that somebody started."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcache.cluster.spec import ClusterChoice, LocalWorkers, Scheduler, SlurmJobs, SlurmWorkers
from emcache.errors import ClusterError, UsageError
from emcache.progress import Reporter

if TYPE_CHECKING:
    from distributed import Client

# Dask calls a task bad after so many of its workers have died; it is then tried again, twice.
_MOST_DEATHS = 4
_STARTS = 3
_CONNECT_SECONDS = 10.0
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.5
# A job's worker ends so long after its scheduler was last heard of.
_DEATH_SECONDS = 60
_CALM = {
    "distributed.scheduler.allowed-failures": _MOST_DEATHS,
    # The memory of a backbone is not Dask's to manage: it would stop a worker for it.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.system-monitor.gil.enabled": False,
}


@contextmanager
def started_workers(
    choice: ClusterChoice, folder: Path, reporter: Reporter
) -> Iterator[tuple[Client, Callable[[], None]]]:
    """A client with at least one worker, and what calls back workers that were lost.

    Args:
        choice: Which workers.
        folder: The workspace's root, below which SLURM's jobs leave what they print.
        reporter: Receives messages: who is waited for.

    Raises:
        UsageError: The extra ``cluster`` is not installed.
        ClusterError: There is no scheduler, or no worker comes.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise UsageError(
            "--cluster needs Dask, which is not installed; install it with `pip install "
            "'emcache[cluster]'`."
        ) from error
    # What the engine says of workers that come and go is not for users.
    for name in (*logging.root.manager.loggerDict, "tornado.application", "asyncio"):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(_CALM), tempfile.TemporaryDirectory(prefix="emcache-") as scratch:
        match choice:
            case LocalWorkers(count):
                cluster = _local(count, scratch)
            case SlurmWorkers(jobs):
                cluster = _slurm(jobs, folder)
            case Scheduler():
                cluster = None
        try:
            client = _connect(distributed, cluster, choice)
            try:
                _wait_for_workers(client, choice, reporter)
                yield client, _keeper(cluster, choice)
            finally:
                with suppress(Exception):
                    client.close(timeout=5)
        finally:
            if cluster is not None:
                with suppress(Exception):
                    cluster.close(timeout=10)


def threads_of(choice: ClusterChoice) -> int | None:
    """Threads that a worker computes with; None where whoever started it has said so."""
    match choice:
        case LocalWorkers(count):
            cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
            said = os.environ.get("OMP_NUM_THREADS", "")
            return int(said) if said.isdecimal() and int(said) else max(1, (cores or 1) // count)
        case SlurmWorkers(jobs):
            return max(1, jobs.cores // jobs.workers_per_job)
        case Scheduler():
            return None


def _local(count: int, scratch: str) -> Any:
    attempt = 1
    while True:
        try:
            return _start_local(count, scratch)
        except (OSError, RuntimeError) as error:
            # A process that is killed while it starts takes the whole attempt with it.
            if attempt == _STARTS:
                raise ClusterError(
                    f"{count} workers could not be started on this machine ({error!s:.200}); "
                    f"expected memory for as many: start fewer, as --cluster local:1."
                ) from error
            attempt += 1


def _start_local(count: int, scratch: str) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
        local_directory=scratch,
        host="127.0.0.1",
        # Ctrl-C is this process's; workers are ended by it.
        preload=["emcache.cluster.preload"],
    )


def _slurm(jobs: SlurmJobs, folder: Path) -> Any:
    from dask_jobqueue import SLURMCluster

    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ClusterError(
            "there is no sbatch on this machine, which SLURM jobs are made with; expected a login "
            "node of the cluster: run the command there."
        )
    logs = Path(jobs.logs or folder / "logs")
    logs.mkdir(parents=True, exist_ok=True)
    per_job = jobs.workers_per_job
    cluster = SLURMCluster(
        cores=max(jobs.cores, per_job),
        processes=per_job,
        job_cpu=jobs.cores,
        memory=jobs.memory,
        queue=jobs.partition,
        account=jobs.account,
        walltime=jobs.walltime,
        job_extra_directives=[
            *([f"--gres=gpu:{jobs.gpus}"] if jobs.gpus else []),
            *jobs.directives,
        ],
        job_script_prologue=list(jobs.setup),
        python=jobs.python or sys.executable,
        interface=jobs.interface,
        local_directory=jobs.scratch,
        log_directory=str(logs),
        death_timeout=_DEATH_SECONDS,
        job_name="emcache",
        worker_extra_args=[
            # One piece of work at a time: it has one model, and all the cores of its share.
            *("--nthreads", "1"),
            # SLURM's own limit holds; Dask's would stop a worker for the memory of its backbone.
            *("--memory-limit", "0"),
            *("--preload", "emcache.cluster.preload"),
        ],
        scheduler_options={
            "dashboard_address": None,
            **({"host": jobs.host} if jobs.host else {}),
        },
        silence_logs=logging.CRITICAL,
    )
    _try_job(sbatch, cluster.job_script())
    cluster.scale(jobs=jobs.workers)
    return cluster


def _try_job(sbatch: str, script: str) -> None:
    """Ask SLURM whether it would take such a job; what it says otherwise goes to the user."""
    asked = subprocess.run(  # noqa: S603 - the program that PATH names
        [sbatch, "--test-only"], input=script, capture_output=True, text=True, check=False
    )
    if asked.returncode:
        said = " ".join(asked.stderr.split())
        raise ClusterError(
            f"SLURM refuses the jobs of this configuration ({said:.300}); expected ones that "
            f"sbatch takes: correct the cluster's table."
        )


def _connect(distributed: Any, cluster: Any, choice: ClusterChoice) -> Client:
    if isinstance(choice, Scheduler):
        try:
            found: Client = distributed.Client(choice.address, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"there is no scheduler at {choice.address} (waited {_CONNECT_SECONDS:.0f} s); "
                f"start one with `dask scheduler`, or correct the address.",
                subject=choice.address,
            ) from error
        return found
    own: Client = distributed.Client(cluster)
    return own


def _wait_for_workers(client: Client, choice: ClusterChoice, reporter: Reporter) -> None:
    limit, advice = _WAIT_SECONDS, "start some with `dask worker ADDRESS --nthreads 1`"
    if isinstance(choice, SlurmWorkers):
        minutes = choice.jobs.wait_minutes
        limit = float("inf") if minutes is None else minutes * 60
        advice = "look at `squeue` and at what the jobs have printed, or wait longer"
        reporter.say(f"Waiting for the first of {choice.jobs.workers} jobs of SLURM.")
    started = time.monotonic()
    while not client.scheduler_info(n_workers=-1)["workers"]:
        if time.monotonic() - started > limit:
            raise ClusterError(f"no worker came within {limit:.0f} s; {advice}.", subject=choice)
        time.sleep(_POLL_SECONDS)


def _keeper(cluster: Any, choice: ClusterChoice) -> Callable[[], None]:
    """What has jobs that ended, or were taken away, made again."""
    if isinstance(choice, SlurmWorkers):
        return lambda: cluster.scale(jobs=choice.jobs.workers)
    return lambda: None
