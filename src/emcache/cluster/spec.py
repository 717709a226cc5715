"""Which workers a command means: ``local:2``, ``slurm:gpu`` or ``tcp://node1:8786``.

``[clusters.NAME]`` in ``emcache.toml``, or a TOML file of its own, says how SLURM jobs are made.
``default`` in ``[clusters]`` is what a command takes that names none.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, Field

from emcache.errors import ClusterError, UsageError
from emcache.storage.workspace import Workspace, find_long_name, find_oddity
from emcache.validation import Misfit, Table, check

NONE = "none"
"""Stands for this process alone, whatever ``emcache.toml`` says."""

_LOCAL = re.compile(r"local:([1-9]\d{0,2})")
_ADDRESS = re.compile(r"(tcp|tls)://[^\s/:]+:\d{1,5}")
_SLURM = "slurm:"
_TOML = ".toml"
_EXPECTED = "local:N, slurm:NAME, slurm:FILE.toml, tcp://HOST:PORT or none"


def _bytes(text: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)? ?[KMGT]i?B", text) is None:
        raise ValueError("not a size")
    return text


def _one_line(text: str) -> str:
    if "\n" in text or not text.strip():
        raise ValueError("not one line")
    return text


_Line = Annotated[str, AfterValidator(_one_line)]


class SlurmJobs(Table):
    """How the jobs of SLURM are made; each runs one worker, or one for each of its GPUs."""

    workers: Annotated[int, Ge(1), Le(10_000)] = Field(description="a number of jobs, 1 or more")
    memory: Annotated[str, AfterValidator(_bytes)] = Field(description='memory of a job, as "16GB"')
    cores: Annotated[int, Ge(1), Le(4096)] = Field(1, description="cores of a job, 1 or more")
    gpus: Annotated[int, Ge(0), Le(64)] = Field(0, description="GPUs of a job, 0 or more")
    partition: _Line | None = Field(None, description="the name of a partition")
    account: _Line | None = Field(None, description="the name of an account")
    walltime: _Line | None = Field(None, description='the longest time of a job, as "04:00:00"')
    directives: list[_Line] = Field([], description='further lines of #SBATCH, as "--exclusive"')
    setup: list[_Line] = Field([], description='commands before a worker, as "module load cuda"')
    python: _Line | None = Field(None, description="a command that starts Python with emcache")
    interface: _Line | None = Field(None, description='a network interface, as "ib0"')
    host: _Line | None = Field(None, description="the address by which jobs reach this machine")
    scratch: _Line | None = Field(None, description="a folder on the disk of each node")
    logs: _Line | None = Field(None, description="a folder for what jobs print")
    wait_minutes: Annotated[float, Gt(0)] | None = Field(
        None, description="minutes to wait for the first worker"
    )

    @property
    def workers_per_job(self) -> int:
        """One for each GPU."""
        return max(1, self.gpus)


@dataclass(frozen=True, slots=True)
class LocalWorkers:
    """Processes on this machine."""

    count: int


@dataclass(frozen=True, slots=True)
class SlurmWorkers:
    """Jobs of SLURM."""

    jobs: SlurmJobs


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A Dask scheduler that somebody started, with its workers."""

    address: str


ClusterChoice = LocalWorkers | SlurmWorkers | Scheduler


def find_cluster(workspace: Workspace, text: str | None) -> ClusterChoice | None:
    """What ``--cluster`` means in a workspace.

    Args:
        workspace: Whose ``emcache.toml`` may have a default, and tables by name.
        text: As the user gave it; None for the default.

    Returns:
        None for this process alone.

    Raises:
        UsageError: It is nothing that could be a cluster.
        ClusterError: The table or the file it names is not there, or has a key or value that cannot
            be.
    """
    tables = workspace.cluster_tables()
    where = "--cluster"
    if text is None:
        text, where = tables.get("default"), f"default in [clusters] of {workspace.config_path}"
        if text is None:
            return None
    if not isinstance(text, str):
        raise ClusterError(f"{where} is {text!r:.80}; expected {_EXPECTED}.", subject=text)
    if text == NONE:
        return None
    if found := _LOCAL.fullmatch(text):
        return LocalWorkers(int(found[1]))
    if _ADDRESS.fullmatch(text):
        return Scheduler(text)
    if text.startswith(_SLURM) and (name := text.removeprefix(_SLURM)):
        return SlurmWorkers(_slurm_jobs(workspace, tables, name))
    raise UsageError(f"{where} cannot be {text!r:.100}; expected {_EXPECTED}.", subject=text)


def _slurm_jobs(workspace: Workspace, tables: Mapping[str, Any], name: str) -> SlurmJobs:
    table: object
    if name.endswith(_TOML):
        place, table = name, _read(Path(name))
    else:
        place, table = f"[clusters.{name}] of {workspace.config_path}", tables.get(name)
        if table is None or name == "default":
            known = ", ".join(key for key in tables if key != "default") or "none"
            raise ClusterError(
                f"there is no [clusters.{name:.80}] in {workspace.config_path} (known: {known}); "
                f"add it there, or name a file, as slurm:cluster.toml.",
                subject=name,
            )
    jobs = check(SlurmJobs, table)
    if not isinstance(jobs, Misfit):
        return jobs
    if jobs.kind == "unknown":
        raise ClusterError(
            f"{place} has the key {jobs.key!r:.80}, which is unknown; {jobs.known_keys}.",
            subject=jobs.key,
        )
    found = "is missing" if jobs.kind == "missing" else f"is {jobs.value!r:.80}"
    raise ClusterError(
        f"{jobs.key or 'the table'} of {place} {found}; expected {jobs.expected or 'a table'}.",
        subject=jobs.key,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(
            f"the cluster configuration {path} cannot be read ({error}); expected a TOML file, as "
            f"in docs/cluster.md.",
            subject=path,
        ) from error
    try:
        oddity = find_long_name(text)
        content = tomllib.loads("" if oddity else text)
    except (ValueError, RecursionError) as error:
        raise ClusterError(
            f"{path} is not valid TOML: {error!s:.300}; fix that line.", subject=path
        ) from error
    if oddity := oddity or find_oddity(content):
        raise ClusterError(f"{path} holds {oddity}; fix that line.", subject=path)
    return content
