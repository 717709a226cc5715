"""A real SLURM of one node on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a SLURM whose files are in a folder, and which is stopped at the end."""
    for program in ("slurmctld", "slurmd", "munged", "sbatch"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is absent (Debian's slurm-wlm and munge)")
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons are started as root")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    config = folder / "slurm.conf"
    cores = len(os.sched_getaffinity(0))
    config.write_text(SLURM.format(host=socket.gethostname(), folder=folder, cores=cores))
    environment = {"SLURM_CONF": str(config)}
    munged = start_munge()
    try:
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon, "-f", str(config)], check=True, capture_output=True)
        wait_for(lambda: "idle" in ask("sinfo", "-h", "-o", "%t", **environment), 60)
        yield environment
    finally:
        for daemon in ("slurmd", "slurmctld"):
            with suppress(OSError, ValueError, ProcessLookupError):
                os.kill(int((folder / f"{daemon}.pid").read_text()), 15)
        if munged is not None:
            munged.terminate()


def start_munge() -> subprocess.Popen[bytes] | None:
    """Start ``munged``; None where one runs."""
    if _munge_answers():
        return None
    place = Path("/run/munge")
    place.mkdir(exist_ok=True)
    shutil.chown(place, "munge", "munge")
    daemon = subprocess.Popen(
        ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground"]
    )
    wait_for(_munge_answers, 30)
    return daemon


def _munge_answers() -> bool:
    return subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0


def ask(*command: str, **environment: str) -> str:
    """What a program prints."""
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    ).stdout


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; skip what needs it where it does not come."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.skip("SLURM did not start here")
        time.sleep(0.2)
